"""The worker that keeps the sums: it follows the events and the attempts at deliveries in the order of their row keys.

Nothing is added to the transactions of webhooks and deliveries; the sums are some seconds behind instead. Of a log it
counts up to the newest row that it sees, but only when every transaction that was writing the log then has ended: on
PostgreSQL a row with a smaller key may become visible later than one with a greater key
(`receiver.storage.open_writers`).

A database that has rows when the tables of sums are new is counted from its oldest row on, in pieces with pauses.
"""

import asyncio
from datetime import timedelta

from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.open_writers import DELIVERY_ATTEMPTS, EVENTS, OpenWriters
from receiver.storage.statistics import counting
from receiver.storage.statistics.sums import CountedPart, position_of, store

EVERY_SECONDS = 2.0
PAGE = 2000
"""Row keys that are counted, and added to the sums, at once."""
_PAUSES = 4
"""While there is more to count: how many times as long as the piece before it a pause is."""
_HELD = timedelta(seconds=10)
_LOGS = {"events": EVENTS, "attempts": DELIVERY_ATTEMPTS}


class StatisticsWorker:
    """Counts what is new, every `EVERY_SECONDS`; of several processes on one database, one at a time does it."""

    def __init__(self, database: Database, *, page: int = PAGE) -> None:
        self._database = database
        self._page = page
        self._id = new_id()

    async def run(self) -> None:
        """Count at intervals until cancelled."""
        while True:
            await self.count()
            await asyncio.sleep(EVERY_SECONDS)

    async def count(self) -> None:
        """Count all that is committed by now, unless another process is at it. Raises `StorageUnavailable`."""
        for log in _LOGS:
            await self._count_log(log)

    async def _count_log(self, log: str) -> None:
        (known,) = await self._database.read(position_of(log))
        newest = (await self._database.read(counting.newest(log)))[0]["newest"]
        if newest is None or newest <= known["position"] or self._is_held_by_another(known):
            return
        await (await OpenWriters.of(self._database, _LOGS[log])).ended()
        clock, after = asyncio.get_running_loop().time, known["position"]
        while after < newest:
            began = clock()
            part = await self._part(log, after, newest)
            if not await self._store(part):
                return
            after = part.until
            if after < newest:
                await asyncio.sleep((clock() - began) * _PAUSES)

    def _is_held_by_another(self, known: dict[str, object]) -> bool:
        until = known["held_until"]
        return known["holder"] != self._id and until is not None and utc_now() < until  # type: ignore[operator]

    async def _part(self, log: str, after: int, newest: int) -> CountedPart:
        """Count the next part of a log. Row keys that are missing, as after a purge, are left out at once."""
        read = self._database.read
        first = (await read(counting.first_after(log), {"after": after}))[0]["first"]
        until = newest if first is None else min(first - 1 + self._page, newest)
        part, keys = CountedPart(log, after, until), counting.part(after, until)
        if first is None:
            return part
        if log == "attempts":
            part.add_attempts(await read(counting.attempts(), keys))
            return part
        found = await read(counting.task_events(), keys)
        part.add_task_events(found)
        if any(row["is_correction"] for row in found):
            part.add_task_events(await read(counting.corrected_ends(), keys), corrected=True)
        part.add_dead(await read(counting.dead_deliveries(), keys))
        part.add_metadata(await read(counting.new_metadata(), keys))
        return part

    async def _store(self, part: CountedPart) -> bool:
        now = utc_now()
        return await self._database.writer.run(lambda tx: store(tx, part, self._id, now + _HELD, now), bounded=False)
