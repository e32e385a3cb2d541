"""Authenticates a request: an API key in `X-API-Key` or `Authorization: Bearer`, looked up by its hash."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Address, Headers

from models import Scope
from receiver.api.wrong_keys import WrongKeys
from receiver.domain.keyring import hash_api_key
from receiver.errors import NotAllowed, NotAuthenticated, Unavailable
from receiver.storage.database import Database
from receiver.storage.keys import forget_sealed, live_key
from receiver.telemetry import counted, get_logger, wrong_keys

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
    """Looks keys up, and caches them for a few seconds, so that a busy client does not cost a query per request.

    `wrong_key_tries` is how many wrong keys one address may send within how many seconds before it is slowed.
    """

    def __init__(self, database: Database, wrong_key_tries: tuple[float, float] = (20, 60)) -> None:
        self._database = database
        self._wrong_keys = WrongKeys(database, *wrong_key_tries)
        self._cached: dict[str, tuple[float, Principal]] = {}

    async def principal(self, headers: Headers, client: Address | None = None) -> Principal:
        """Return the principal of a request from `client`.

        Raises `NotAuthenticated` that says what is missing or wrong, and `RateLimited` for the wrong key of an address
        that has sent many.
        """
        hashed = hash_api_key(_key_in(headers))
        now = time.monotonic()
        cached = self._cached.get(hashed)
        if cached is not None and cached[0] > now:
            return cached[1]
        host = client.host if client is not None else None
        # A key that was valid some seconds ago is always looked up.
        if cached is None and not await self._wrong_keys.may_exist(hashed, host):
            raise self._wrong_keys.refusal(host)
        rows = await self._database.read(live_key(hashed))
        if not rows:
            self._cached.pop(hashed, None)
            self._wrong_keys.found_none(hashed)
            raise self._wrong_keys.refusal(host)
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

    def created(self, hashed: str) -> None:
        """Note that a key with this hash was created: it works at once, even if it was tried before."""
        self._wrong_keys.created(hashed)

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
        raise _missing(
            "the request has no API key: send it as `X-API-Key: <key>` or `Authorization: Bearer <key>`",
            "missing_authorization_header",
        )
    if scheme.lower() != "bearer":
        raise _missing("the Authorization scheme must be Bearer", "invalid_authorization_scheme")
    if not token:
        raise _missing("the Bearer token is empty", "missing_bearer_token")
    return token


def _missing(message: str, code: str) -> NotAuthenticated:
    """Count a request without a key; return the error. It is not slowed: nothing is guessed, and nothing looked up."""
    counted(wrong_keys, "missing").inc()
    return NotAuthenticated(message, code=code)
