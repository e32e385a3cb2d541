"""Notices between the processes on one PostgreSQL (LISTEN and NOTIFY): that events were committed, or keys changed.

Why a notice has no content: what happened is in the tables, which every process reads in any case. A notice that is
lost with its connection costs nothing but time: the other process also reads the tables at intervals without one (see
`receiver.events.postgresql_log`), and after each reconnect.

Why it is sent after the commit, on a connection of its own, and not in the transaction: PostgreSQL commits transactions
that notify one at a time, under a lock that is held while the commit waits for the disk, so that notices arrive in the
order of commits. All processes would then share one commit at a time. Sent afterwards, a notice costs the writer
nothing, and one notice serves for all commits of the last few milliseconds. A process that dies between its commit and
its notice delays the others until they read without one.

Where no other process listens, one notice serves for all commits of a second: each costs the server as much as a small
query, and wakes this process. Once a second, with the notice that it sends then, a process asks whether it is alone
(`own_sessions`). Another one marks its session before it listens, and then sends a notice, by which the one that was
alone knows of it at once: what that has committed meanwhile is told without delay.
"""

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg

from receiver.storage.postgresql.errors import is_unavailable
from receiver.storage.postgresql.own_sessions import IS_ALONE, mark_as_listener
from receiver.storage.postgresql.server import connect_raw
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.notices")

_CHANNEL = "ringback"
_KEYS_CHANNEL = "ringback_keys"
_RECONNECT_SECONDS = 1.0
_INTERVAL_SECONDS = 0.025
"""The least time between two notices: all commits within it share one."""
_ALONE_SECONDS = 1.0
"""That of a process that is alone; others ask as often whether they are."""
_NOTIFY_AND_ASK = f"SELECT ({IS_ALONE}), pg_notify('{_CHANNEL}', '')"


class Notices:
    """Sends notices to the other processes, and sets `received` or `keys_changed` when one of theirs arrives."""

    def __init__(self, dsn: str) -> None:
        self.received = asyncio.Event()
        """Set when another process sent a notice, or may have; the reader clears it."""
        self.keys_changed = asyncio.Event()
        """Set when another process revoked a key, or may have; the reader clears it."""
        self._dsn = dsn
        self._pid = 0
        self._to_send = asyncio.Event()
        self._have_keys_changed = False
        self._asks_at = 0.0
        self._is_alone = False
        self._heard = 0
        """How many notices of other processes there were."""
        self._hurry = asyncio.Event()
        """Set when one that is alone may not wait for the rest of the second."""
        self._connection: asyncpg.Connection | None = None

    def send(self) -> None:
        """Notify the other processes soon. Does not wait."""
        self._to_send.set()

    def send_keys_changed(self) -> None:
        """Notify the other processes soon that a key was revoked. Does not wait."""
        self._have_keys_changed = True
        self._send_at_once()

    async def run(self) -> None:
        """Listen and send until cancelled; reconnect when the connection breaks."""
        try:
            while True:
                try:
                    await self._listen()
                    await self._send_all()
                except Exception as error:
                    if not is_unavailable(error):
                        raise
                    log.warning("notices interrupted; reconnecting", error=type(error).__name__)
                self._drop()
                await asyncio.sleep(_RECONNECT_SECONDS)
        finally:
            self._drop()

    async def _listen(self) -> None:
        self._connection = await connect_raw(self._dsn)  # to the primary: a standby can neither listen nor notify
        self._connection.add_termination_listener(lambda *_: self._send_at_once())
        # Not the driver's own number: that is a pooler's, where one stands between.
        self._pid = await self._connection.fetchval("SELECT pg_backend_pid()")
        await mark_as_listener(self._connection)
        await self._connection.add_listener(_CHANNEL, self._hear)
        await self._connection.add_listener(_KEYS_CHANNEL, self._hear_of_keys)
        self.received.set()  # notices may have been sent before this
        self.keys_changed.set()
        self._asks_at = 0.0
        self.send()  # who was alone until now is not any more

    async def _send_all(self) -> None:
        while self._connection is not None and not self._connection.is_closed():
            await self._to_send.wait()
            self._to_send.clear()
            self._hurry.clear()
            await self._send(self._connection)
            if self._have_keys_changed:
                self._have_keys_changed = False
                await self._connection.execute(f"NOTIFY {_KEYS_CHANNEL}")
            await self._rest()

    async def _send(self, connection: asyncpg.Connection) -> None:
        """Send a notice; ask with it, once a second, whether anybody else hears it."""
        now = asyncio.get_running_loop().time()
        if now < self._asks_at:
            await connection.execute(f"NOTIFY {_CHANNEL}")
            return
        heard = self._heard
        is_alone = await connection.fetchval(_NOTIFY_AND_ASK)
        self._asks_at = now + _ALONE_SECONDS
        self._is_alone = is_alone and heard == self._heard

    async def _rest(self) -> None:
        if not self._is_alone:
            await asyncio.sleep(_INTERVAL_SECONDS)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_ALONE_SECONDS):
                await self._hurry.wait()

    def _send_at_once(self) -> None:
        self._to_send.set()
        self._hurry.set()

    def _hear(self, _connection: Any, pid: int, _channel: str, _payload: object) -> None:
        if pid != self._pid:  # kept, because a connection that was ended meanwhile has none any more
            self._heard += 1
            self._is_alone = False
            self._hurry.set()
            self.received.set()

    def _hear_of_keys(self, _connection: Any, pid: int, _channel: str, _payload: object) -> None:
        if pid != self._pid:
            self.keys_changed.set()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
