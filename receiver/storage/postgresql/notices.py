"""Notices between the processes of one PostgreSQL: that there is news, and no more; what it is stands in tables.

A notice may be lost with its connection, so whoever waits for one looks by himself from time to time. It is sent
after the commit and not in it: inside, PostgreSQL lets one notifying transaction commit at a time, and waits for the
disk between them.
"""

import asyncio
from typing import Any

import asyncpg

from receiver.storage.postgresql.errors import is_unavailable
from receiver.storage.postgresql.server import connect_raw
from receiver.telemetry import get_logger

log = get_logger("storage.postgresql.notices")

_CHANNEL = "ringback"
_CONNECT_AGAIN_SECONDS = 1.0
_TOGETHER_SECONDS = 0.025
"""Commits that come so close to each other share a notice."""


class Notices:
    """Sends notices, and sets `heard` when another process sent one."""

    def __init__(self, dsn: str) -> None:
        self.heard = asyncio.Event()
        self._dsn = dsn
        self._to_send = asyncio.Event()
        self._connection: asyncpg.Connection | None = None

    def send(self) -> None:
        """Tell the other processes, soon, that there is news."""
        self._to_send.set()

    async def run(self) -> None:
        """Listen and send for ever."""
        try:
            while True:
                try:
                    await self._listen()
                    await self._send_what_comes()
                except Exception as error:
                    if not is_unavailable(error):
                        raise
                    log.warning("no notices for now", error=type(error).__name__)
                self._drop()
                await asyncio.sleep(_CONNECT_AGAIN_SECONDS)
        finally:
            self._drop()

    async def _listen(self) -> None:
        self._connection = await connect_raw(self._dsn)  # a standby can neither listen nor notify
        self._connection.add_termination_listener(lambda *_: self._to_send.set())
        await self._connection.add_listener(_CHANNEL, self._hear)
        self.heard.set()  # whatever was said before this

    async def _send_what_comes(self) -> None:
        while self._connection is not None and not self._connection.is_closed():
            await self._to_send.wait()
            self._to_send.clear()
            await self._connection.execute(f"NOTIFY {_CHANNEL}")
            await asyncio.sleep(_TOGETHER_SECONDS)

    def _hear(self, connection: Any, pid: int, _channel: str, _payload: object) -> None:
        if pid != connection.get_server_pid():
            self.heard.set()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
