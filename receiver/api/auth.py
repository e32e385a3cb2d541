"""Authenticates a request: an API key in `X-API-Key` or `Authorization: Bearer`, looked up by its hash."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Address, Headers

from models import Scope
from receiver.api.keys_in_use import KeysInUse, Principal, check_expiry
from receiver.api.wrong_keys import WrongKeys
from receiver.clock import monotonic
from receiver.domain.keyring import hash_api_key
from receiver.errors import NotAuthenticated, RateLimited, RingbackError, Unavailable
from receiver.key_strength import weakness
from receiver.storage.database import Database, Query
from receiver.storage.keys import SETTING, forget_sealed, live_key, live_key_by_uid
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, wrong_keys

log = get_logger("api.auth")

_HOLD_SECONDS = 0.2
_MOST_HELD = 1_000
"""How many refusals of slowed clients are held back at a time; further ones are sent at once."""


class Authenticator:
    """Looks keys up, and keeps them for a short time (`in_use`), so that a busy client costs no query per request.

    `wrong_key_tries` is how many wrong keys one address may send within how many seconds before it is slowed.
    """

    def __init__(self, database: Database, wrong_key_tries: tuple[float, float] = (20, 60)) -> None:
        self._database = database
        self._wrong_keys = WrongKeys(database, *wrong_key_tries)
        self.in_use = KeysInUse(database)
        self._held = 0

    async def principal(self, headers: Headers, client: Address | None = None) -> Principal:
        """Return the principal of a request from `client`.

        Raises `NotAuthenticated` that says what is missing or wrong, and `RateLimited` for the wrong key of an address
        that has sent many.
        """
        return await self.principal_with(_key_in(headers), client)

    async def principal_with(self, key: str, client: Address | None) -> Principal:
        """Return the principal of a key that `client` sends. Raises as `principal` does."""
        hashed = hash_api_key(key)
        host = client.host if client is not None else None
        return self.in_use.known(hashed) or await self._look_up(key, hashed, host)

    async def principal_of(self, key_uid: str) -> Principal:
        """Return the principal of the key with this id, which is read for this. Raises `NotAuthenticated`."""
        rows, read_at = await self._read(live_key_by_uid(key_uid))
        if not rows:
            raise NotAuthenticated("the API key was revoked: use another one")
        row = rows[0]
        if row["expires_at"] is not None:
            check_expiry(row["expires_at"])
        principal = _principal(row)
        self.in_use.add(row["hash"], principal, read_at)
        return principal

    async def _look_up(self, key: str, hashed: str, host: str | None) -> Principal:
        # A key that was valid some seconds ago is always looked up.
        if not self.in_use.was_known(hashed) and not await self._wrong_keys.may_exist(hashed, host):
            raise await self._refusal(host)
        rows, read_at = await self._read(live_key(hashed))
        if not rows:
            self._wrong_keys.found_none(hashed)
            raise await self._refusal(host)
        row = rows[0]
        if row["expires_at"] is not None:
            check_expiry(row["expires_at"])
        if row["name"] == SETTING:
            _check_strength(key)
        principal = _principal(row)
        self.in_use.add(hashed, principal, read_at)
        if row["sealed"] is not None:
            await self._forget_sealed(row["id"])
        return principal

    async def _read(self, query: Query) -> tuple[list[dict[str, Any]], float]:
        """Return the rows of a key, and the monotone time before they were read."""
        while True:
            changes, read_at = self.in_use.changes, monotonic()
            rows = await self._database.read(query)
            if changes == self.in_use.changes:  # else it may have been read before it was revoked here
                return rows, read_at

    async def _refusal(self, host: str | None) -> RingbackError:
        """Return the error for a wrong key; for a slowed client after a short while, so that it can send fewer."""
        error = self._wrong_keys.refusal(host)
        if isinstance(error, RateLimited) and self._held < _MOST_HELD:
            self._held += 1
            try:
                await asyncio.sleep(_HOLD_SECONDS)
            finally:
                self._held -= 1
        return error

    async def _forget_sealed(self, key_id: int) -> None:
        """Note that the first admin key was used: no later start shows it."""
        try:
            await self._database.writer.run(lambda tx: forget_sealed(tx, key_id))
        except Unavailable as error:  # the next request that is not served from the cache tries again
            log.info("first use of a key not stored", error_code=error.code)

    def created(self, hashed: str) -> None:
        """Note that a key with this hash was created: it works at once, even if it was tried before."""
        self._wrong_keys.created(hashed)


def _check_strength(key: str) -> None:
    """Raise `NotAuthenticated` if a key could be guessed: an earlier version took it from the setting and stored it."""
    if reason := weakness(key):
        raise NotAuthenticated(
            f"the API key could be guessed ({reason}), so it is not accepted any more: set RINGBACK_API_KEY to another "
            "one, which replaces it",
            code="weak_api_key",
        )


def _principal(row: Mapping[str, Any]) -> Principal:
    return Principal(
        organization_id=row["organization_id"],
        organization_uid=row["organization_uid"],
        scope=Scope(row["scope"]),
        key_id=row["id"],
        rate_limit=row["rate_limit"],
        key_name=f"{row['name']} ({row['hint']}...)",
        expires_at=row["expires_at"],
        key_uid=row["uid"],
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
