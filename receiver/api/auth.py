"""Authenticates a request: an API key in `X-API-Key` or `Authorization: Bearer`, looked up by its hash."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from models import Scope
from receiver.domain.keyring import hash_api_key
from receiver.errors import NotAllowed, NotAuthenticated, Unavailable
from receiver.storage.database import Database
from receiver.storage.keys import forget_sealed, live_key
from receiver.telemetry import get_logger

log = get_logger("api.auth")

_RANKS = {Scope.READ: 0, Scope.WRITE: 1, Scope.ADMIN: 2}
_CACHE_SECONDS = 10.0
"""How long a key is cached. A key that another replica revoked works for this long at most."""
_MOST_CACHED = 4096


@dataclass(frozen=True, slots=True)
class Principal:
    """The organization and the key of a request; `rate_limit` is the key's own, in requests per second."""

    organization_id: int
    organization_uid: str
    scope: Scope
    key_id: int
    rate_limit: float | None

    def require(self, scope: Scope) -> None:
        """Raise `NotAllowed` unless the key has this scope or a higher one."""
        if _RANKS[self.scope] < _RANKS[scope]:
            raise NotAllowed(f"the key has the scope {self.scope}; this call needs a key with the scope {scope}")


class Authenticator:
    """Looks keys up, and caches them for a few seconds, so that a busy client does not cost a query per request."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cached: dict[str, tuple[float, Principal]] = {}

    async def principal(self, headers: Headers) -> Principal:
        """Return the principal of a request. Raises `NotAuthenticated` that says what is missing or wrong."""
        hashed = hash_api_key(_key_in(headers))
        now = time.monotonic()
        cached = self._cached.get(hashed)
        if cached is not None and cached[0] > now:
            return cached[1]
        rows = await self._database.read(live_key(hashed))
        if not rows:
            raise NotAuthenticated("the API key is unknown or was revoked: check it, or create a new one")
        if rows[0]["sealed"] is not None:
            await self._forget_sealed(rows[0]["id"])
        principal = _principal(rows[0])
        if len(self._cached) >= _MOST_CACHED:
            self._cached.clear()
        self._cached[hashed] = (now + _CACHE_SECONDS, principal)
        return principal

    async def _forget_sealed(self, key_id: int) -> None:
        """Note that the first admin key was used: no later start shows it."""
        try:
            await self._database.writer.run(lambda tx: forget_sealed(tx, key_id))
        except Unavailable as error:  # the next request that is not served from the cache tries again
            log.info("first use of a key not stored", error_code=error.code)

    def forget(self) -> None:
        """Drop the cache, because a key was revoked."""
        self._cached.clear()


def _principal(row: Mapping[str, Any]) -> Principal:
    return Principal(
        organization_id=row["organization_id"],
        organization_uid=row["organization_uid"],
        scope=Scope(row["scope"]),
        key_id=row["id"],
        rate_limit=row["rate_limit"],
    )


def _key_in(headers: Headers) -> str:
    key = headers.get("x-api-key", "").strip()
    if key:
        return key
    scheme, _, token = " ".join(headers.get("authorization", "").split()).partition(" ")
    if not scheme:
        raise NotAuthenticated(
            "the request has no API key: send it as `X-API-Key: <key>` or `Authorization: Bearer <key>`",
            code="missing_authorization_header",
        )
    if scheme.lower() != "bearer":
        raise NotAuthenticated("the Authorization scheme must be Bearer", code="invalid_authorization_scheme")
    if not token:
        raise NotAuthenticated("the Bearer token is empty", code="missing_bearer_token")
    return token
