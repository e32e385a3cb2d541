"""The API keys that requests of this process use, looked at together, and what ends when one of them does.

A key may be revoked or expire while it is in use. On the process where it is revoked, that is known after the commit
(`KeysInUse.end`). The others read all keys that they use with one statement, when a notice says that keys changed
(`receiver.storage.postgresql.notices`), and every `CHECK_SECONDS` in case the notice was lost. So what a request may do
with a key that it has found (`KeysInUse.known`) is at most `_VALID_SECONDS` old.

What takes long is held (`KeysInUse.hold`): streams, waiting requests, answers that are passed on. It is cancelled when
its key ends. Requests that change something are not: they were allowed, and are finished.

The same look notes when each key was last used, at most once in `_USE_SECONDS` for a key, however many processes use
it: each sees in the row what another has noted.
"""

import asyncio
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from msgspec import Struct

from models import Scope
from receiver.clock import monotonic, utc_now
from receiver.errors import NotAllowed, NotAuthenticated, Unavailable
from receiver.storage.database import Database
from receiver.storage.keys import KeyUse, keys_in_use, store_uses
from receiver.telemetry.log import get_logger

log = get_logger("api.keys_in_use")

CHECK_SECONDS = 1.5
_VALID_SECONDS = 2.0
"""How long a key that was read is believed without another look."""
_PAUSE_SECONDS = 0.1
"""The least time between two looks, however often keys change."""
_USE_SECONDS = 60.0
_MOST_KNOWN = 4096
NO_KEY = 0
"""The row key that no key has."""
_RANKS = {Scope.READ: 0, Scope.WRITE: 1, Scope.ADMIN: 2}


class Principal(Struct, frozen=True):
    """The organization and the key of a request; `rate_limit` is the key's own, in requests per second.

    `key_name` is the key's name with its first characters, for the audit log, and `key_uid` its id. A person whom a
    proxy has signed in to the dashboard has no key: then `key_id` is `NO_KEY`, and `key_name` is the person's.
    """

    organization_id: int
    organization_uid: str
    scope: Scope
    key_id: int
    rate_limit: float | None
    key_name: str
    expires_at: datetime | None
    key_uid: str = ""

    def require(self, scope: Scope) -> None:
        """Raise `NotAllowed` unless the key has this scope or a higher one."""
        if _RANKS[self.scope] < _RANKS[scope]:
            raise NotAllowed(f"the key has the scope {self.scope}; this call needs a key with the scope {scope}")


class _Known(Struct):
    principal: Principal
    valid_until: float
    used_at: float


class KeysInUse:
    """The keys that this process has read lately, and what is held by each."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._notices = database.shared.notices if database.shared is not None else None
        self._changed = self._notices.keys_changed if self._notices is not None else asyncio.Event()
        self._known: dict[str, _Known] = {}
        self._held: dict[int, set[KeyHold]] = {}
        self._storing: asyncio.Task[None] | None = None
        self.changes = 0
        """How often keys have ended here: a key that was read before the last time must be read again."""

    def known(self, hashed: str) -> Principal | None:
        """Return the principal of the key with this hash, if it was read lately. Raises `NotAuthenticated`."""
        known = self._known.get(hashed)
        if known is None:
            return None
        now = monotonic()
        if known.valid_until <= now:
            return None
        if known.principal.expires_at is not None:
            check_expiry(known.principal.expires_at)
        known.used_at = now
        return known.principal

    def was_known(self, hashed: str) -> bool:
        """Return whether the key with this hash was valid when it was read some seconds ago."""
        return hashed in self._known

    def add(self, hashed: str, principal: Principal, read_at: float) -> None:
        """Keep a key that was read; `read_at` is the monotone time before it was."""
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[hashed] = _Known(principal, read_at + _VALID_SECONDS, monotonic())

    def hold(self, principal: Principal) -> AbstractContextManager[object]:
        """Return a context manager in which the present task is cancelled when the key ends.

        It then raises `NotAuthenticated`. Without a key there is nothing that ends.
        """
        return nullcontext() if principal.key_id == NO_KEY else KeyHold(self._held, principal.key_id)

    def end(self, key_ids: Collection[int]) -> None:
        """End what these keys are used for here, and notify the other processes. Called after the commit."""
        self.changes += 1
        self._end(set(key_ids))
        if self._notices is not None:
            self._notices.send_keys_changed()

    async def run(self) -> None:
        """Look at the keys in use until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._seconds()):
                    await self._changed.wait()
            except TimeoutError:
                pass
            try:
                await self.check()
            except Unavailable as error:  # requests read for themselves meanwhile, and streams go on
                log.info("keys in use not read", error_code=error.code)
                await asyncio.sleep(CHECK_SECONDS)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def check(self) -> None:
        """Read all keys in use; end those that are revoked or have expired. Raises `Unavailable`."""
        self._changed.clear()
        ids = {known.principal.key_id for known in self._known.values()} | self._held.keys()
        if not ids:
            return
        read_at = monotonic()
        rows = {row["id"]: row for row in await self._database.read(keys_in_use(ids))}
        now = utc_now()
        live = {key for key, row in rows.items() if row["expires_at"] is None or row["expires_at"] > now}
        self._end(ids - live)
        uses = self._confirm(rows, read_at, now)
        if uses and (self._storing is None or self._storing.done()):
            self._storing = asyncio.create_task(self._store(KeyUse(uses, now)))

    async def drain(self) -> None:
        """Wait until the last uses that are being stored are."""
        if self._storing is not None:
            await asyncio.wait({self._storing})

    async def _store(self, use: KeyUse) -> None:
        """Store last uses. A writer that is slow may not delay the next look."""
        try:
            await self._database.writer.write(store_uses, use, deferrable=True)
        except Exception as error:  # the next look finds that they are not stored
            log.info("last uses of keys not stored", error=type(error).__name__)

    def _confirm(self, rows: dict[int, dict[str, Any]], read_at: float, now: datetime) -> list[int]:
        """Believe the keys that were found for longer; return those whose last use is to be stored."""
        uses = set()
        for hashed, known in list(self._known.items()):
            row = rows.get(known.principal.key_id)
            if row is None:
                continue  # added since
            is_idle = known.used_at < read_at - _USE_SECONDS and known.principal.key_id not in self._held
            if row["hash"] != hashed or is_idle:
                del self._known[hashed]
                continue
            was_used = known.used_at > known.valid_until - _VALID_SECONDS
            known.valid_until = read_at + _VALID_SECONDS
            if was_used and _is_old(row["last_used_at"], now):
                uses.add(known.principal.key_id)
        return sorted(uses)

    def _end(self, key_ids: Collection[int]) -> None:
        if not key_ids:
            return
        for hashed, known in list(self._known.items()):
            if known.principal.key_id in key_ids:
                del self._known[hashed]
        for key_id in key_ids:
            for held in list(self._held.get(key_id, ())):
                held.end()

    def _seconds(self) -> float:
        """Return when to look again: soon, and when the next key in use expires."""
        ends = [known.principal.expires_at for known in self._known.values() if known.principal.expires_at is not None]
        if not ends:
            return CHECK_SECONDS
        return min(CHECK_SECONDS, max((min(ends) - utc_now()).total_seconds(), 0.0))


class KeyHold:
    """What one task does with a key, from entering to leaving this context."""

    __slots__ = ("_cancelling", "_has_ended", "_held", "_key_id", "_task")

    def __init__(self, held: dict[int, set["KeyHold"]], key_id: int) -> None:
        self._held = held
        self._key_id = key_id
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._has_ended = False

    def end(self) -> None:
        """Cancel the task: its key is not valid any more."""
        if self._task is not None and not self._has_ended:
            self._has_ended = True
            self._task.cancel()

    def __enter__(self) -> "KeyHold":
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._held.setdefault(self._key_id, set()).add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held = self._held[self._key_id]
        held.discard(self)
        if not held:
            del self._held[self._key_id]
        if not self._has_ended or self._task is None:
            return
        # As `asyncio.timeout` does: a cancellation that came from elsewhere as well is passed on.
        if self._task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise NotAuthenticated("the API key was revoked or has expired: use another one") from error


def check_expiry(expires_at: datetime) -> None:
    """Raise `NotAuthenticated` (`key_expired`) if a key that expires then has expired."""
    if expires_at <= utc_now():
        raise NotAuthenticated("the API key has expired: create a new one", code="key_expired")


def _is_old(stored: datetime | None, now: datetime) -> bool:
    return stored is None or stored <= now - timedelta(seconds=_USE_SECONDS)
