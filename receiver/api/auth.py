"""Who calls: a key in `X-API-Key` or `Authorization: Bearer`, known by its hash."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from models import Scope
from receiver.domain.keyring import hash_api_key
from receiver.errors import NotAllowed, NotAuthenticated
from receiver.storage.database import Database
from receiver.storage.keys import live_key

_REACH = {Scope.READ: 0, Scope.WRITE: 1, Scope.ADMIN: 2}
_REMEMBERED_SECONDS = 10.0
"""A key revoked on another replica works no longer than this."""
_MOST_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf a request is made, and with which key; `rate_limit` is the key's own, in requests a second."""

    organization_id: int
    organization_uid: str
    scope: Scope
    key_id: int
    rate_limit: float | None

    def require(self, scope: Scope) -> None:
        """Raise `NotAllowed` unless the key reaches so far."""
        if _REACH[self.scope] < _REACH[scope]:
            raise NotAllowed(f"this key may only {self.scope}; this needs a key with the scope {scope}")


class Authenticator:
    """Knows keys. Remembers them for a few seconds, so that a busy client costs no query a request."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[float, Principal]] = {}

    async def principal(self, headers: Headers) -> Principal:
        """Return who calls. Raises `NotAuthenticated` that says what is missing or wrong."""
        hashed = hash_api_key(_presented(headers))
        now = time.monotonic()
        remembered = self._known.get(hashed)
        if remembered is not None and remembered[0] > now:
            return remembered[1]
        rows = await self._database.read(live_key(hashed))
        if not rows:
            raise NotAuthenticated("the API key is not one of ours, or was revoked")
        principal = _principal(rows[0])
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[hashed] = (now + _REMEMBERED_SECONDS, principal)
        return principal

    def forget(self) -> None:
        """Forget every key: one was revoked."""
        self._known.clear()


def _principal(row: Mapping[str, Any]) -> Principal:
    return Principal(
        organization_id=row["organization_id"],
        organization_uid=row["organization_uid"],
        scope=Scope(row["scope"]),
        key_id=row["id"],
        rate_limit=row["rate_limit"],
    )


def _presented(headers: Headers) -> str:
    key = headers.get("x-api-key")
    if key:
        return key.strip()
    authorization = headers.get("authorization")
    if not authorization:
        raise NotAuthenticated(
            "send your key as `X-API-Key: <key>` or `Authorization: Bearer <key>`", code="missing_authorization_header"
        )
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise NotAuthenticated("the Authorization scheme must be Bearer", code="invalid_authorization_scheme")
    if not token.strip():
        raise NotAuthenticated("the Bearer token is empty", code="missing_bearer_token")
    return token.strip()
