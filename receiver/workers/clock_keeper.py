"""The keeper of the service's clock: it anchors the clock, makes it follow, and notices when another clock jumps.

`receiver.clock` says which clock counts where. A jump of the wall clock, seen as a difference to the monotone clock, is
logged and counted, and changes nothing at once. A jump of the database's clock is followed at once: all replicas
measure the same clock, and one that has just started knows no other. After a step back, what waits would wait for as
much longer, so it is pulled in (`receiver.storage.clock.pull_in`); so it is at a start that finds the newest event in
the future.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from receiver.clock import JUMP_SECONDS, SERVICE_CLOCK, AnchoredClock, monotonic
from receiver.storage.clock import newest_time, pull_in, server_time
from receiver.storage.database import Database
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import clock_jumps, counted

log = get_logger("workers.clock_keeper")

EVERY_SECONDS = 1.0
_MEASURE_SECONDS = 5.0
"""The database's clock is measured this often, and at once when the wall clock jumped: the machine may have slept."""
_FIRST_MEASUREMENTS = 3
"""At the start the quickest of this many counts: the first may wait for a connection."""

Interval = tuple[float, float]
"""The least and the most by which another clock is ahead of the monotone one, in seconds."""


class ClockKeeper:
    """Keeps the service's clock of this process; `longest_lease` (seconds) is the longest that any row gets."""

    def __init__(
        self,
        database: Database,
        *,
        longest_lease: float,
        clock: AnchoredClock = SERVICE_CLOCK,
        wall: Callable[[], float] = lambda: time.time(),
        monotone: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._longest_lease = longest_lease
        self._clock = clock
        self._wall = wall
        self._monotone = monotone
        self._wall_ahead = 0.0
        """By how much the wall clock was ahead of the monotone one when they were compared last."""
        self._measure_at = 0.0

    async def begin(self) -> None:
        """Anchor the clock. Call it before anything that has a time is read or written. Raises `StorageUnavailable`."""
        self._wall_ahead = self._wall() - self._monotone()
        if self._database.shared is None:
            self._clock.set(self._wall())
        else:
            measured = [await self._measure() for _ in range(_FIRST_MEASUREMENTS)]
            least, most = min(measured, key=lambda each: each[1] - each[0])
            self._clock.set(self._monotone() + (least + most) / 2)
            if abs(ahead := self._wall() - self._clock.now()) > JUMP_SECONDS:
                log.warning("wall clock differs from the database's", seconds=round(ahead, 1))
        rows = await self._database.read(newest_time())
        if rows and rows[0]["newest"] > self._now() + timedelta(seconds=JUMP_SECONDS):
            log.warning("newest event is in the future: a clock was set back", newest=rows[0]["newest"].isoformat())
            await self._pull_in()

    async def run(self) -> None:
        """Compare the clocks at intervals until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.compare()

    async def compare(self) -> None:
        """Notice whether the wall clock jumped, and follow the clock that the service goes by."""
        has_jumped = self._compare_wall()
        if self._database.shared is None:
            self._clock.approach(self._wall())
        elif has_jumped or self._monotone() >= self._measure_at:
            await self._follow_database()

    def _compare_wall(self) -> bool:
        ahead = self._wall() - self._monotone()
        jump, self._wall_ahead = ahead - self._wall_ahead, ahead
        return _note_jump("wall", jump)

    async def _follow_database(self) -> None:
        least, most = await self._measure()
        ahead = self._clock.now() - self._monotone()
        error = min(max(ahead, least), most) - ahead
        if not _note_jump("database", error):
            if error:
                self._clock.approach(self._clock.now() + error)
            return
        self._clock.set(self._clock.now() + error)
        if error < 0:
            await self._pull_in()

    async def _measure(self) -> Interval:
        began = self._monotone()
        rows = await self._database.read(server_time())
        ended = self._monotone()
        self._measure_at = ended + _MEASURE_SECONDS
        now = rows[0]["now"].timestamp()
        return now - ended, now - began

    async def _pull_in(self) -> None:
        await self._database.writer.run(lambda tx: pull_in(tx, self._now(), self._longest_lease), bounded=False)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _note_jump(clock: str, seconds: float) -> bool:
    """Log and count a jump of `clock` by `seconds`; return whether it is one."""
    if abs(seconds) <= JUMP_SECONDS:
        return False
    direction = "forward" if seconds > 0 else "back"
    counted(clock_jumps, clock, direction).inc()
    log.warning("clock jumped", clock=clock, direction=direction, seconds=round(abs(seconds), 1))
    return True
