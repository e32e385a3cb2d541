"""The hashes of all live keys, in memory: they tell without a look-up that a key does not exist.

They are read only while they are asked for, at most once a second for all requests together.
"""

import asyncio
import time
from collections.abc import Callable

from receiver.errors import Unavailable
from receiver.storage.database import Database
from receiver.storage.keys import live_hashes

MOST_KEYS = 5_000
"""With more keys than this, they are not held in memory: reading them all would cost more than it saves."""
_READ_SECONDS = 1.0
_OLDEST_SECONDS = 2.0
"""A key that another process created is known after this long at most."""


class LiveKeys:
    """The hashes of all live keys, as they were at most two seconds ago. `clock` is monotonic, in seconds."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._hashes: frozenset[str] = frozenset()
        self._read_at = self._begun_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._added: set[str] = set()
        """The hashes of keys that this process created, until a reading that began later has found them."""

    async def has(self, hashed: str) -> bool | None:
        """Return whether a live key has this hash; None if that is not known without asking for it alone."""
        now = self._clock()
        if now >= self._begun_at + _READ_SECONDS and (self._reading is None or self._reading.done()):
            self._begun_at = now
            self._reading = asyncio.create_task(self._read(now))
        if now >= self._read_at + _OLDEST_SECONDS and self._reading is not None:
            await asyncio.shield(self._reading)
        if now >= self._read_at + _OLDEST_SECONDS:
            return None
        return hashed in self._hashes or hashed in self._added

    def add(self, hashed: str) -> None:
        """Note that this process created a key."""
        self._added.add(hashed)

    async def _read(self, now: float) -> None:
        found = set(self._added)
        try:
            rows = await self._database.read(live_hashes(MOST_KEYS + 1))
        except Unavailable:
            return
        if len(rows) <= MOST_KEYS:
            self._hashes = frozenset(row["hash"] for row in rows)
            self._read_at = now
            self._added -= found
