"""The limits that all processes on one PostgreSQL share: each takes a part, by `receiver.domain.limit_parts`.

Once a second a process writes how much it wants of each limit that is busy in it, and reads what the others want, in
one statement for all limits together; while none is busy, it asks nothing. So no request waits for another process, and
the price is that a change of load is followed a second later.

All times are of the database's clock. A row says nothing when it is `_ROW_SECONDS` old, so a process that has ended
loses its part by itself. How many processes are live is known from the locks of their writers
(`receiver.storage.postgresql.own_sessions`), which no process has to renew.
"""

import asyncio
import time
from collections.abc import Callable

from receiver.domain.ids import new_id
from receiver.domain.limit_parts import HOLD_SECONDS, LimitParts, OthersUse
from receiver.errors import Unavailable
from receiver.storage.postgresql.own_sessions import LIVE_WRITERS
from receiver.storage.postgresql.raw_connection import RawConnection
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.shared_limits")

EVERY_SECONDS = 1.0
_PAUSE_SECONDS = 5.0
"""After a failure: the provider's rate limiters use the same connection, and may not wait for a table of lesser use."""
_ROW_SECONDS = 5
_EXCHANGE = f"""
WITH mine AS (
    SELECT * FROM unnest($2::text[], $3::float8[]) AS mine(name, wanted)
), written AS (
    INSERT INTO limit_use AS used (name, process, wanted, at)
    SELECT name, $1::uuid, wanted, clock_timestamp() FROM mine
    ON CONFLICT (name, process) DO UPDATE SET wanted = excluded.wanted, at = excluded.at
    RETURNING set_config('synchronous_commit', 'off', true)
)
SELECT mine.name, coalesce(sum(other.wanted), 0)::float8 AS wanted, count(other.process)::integer AS processes,
    ({LIVE_WRITERS})::integer AS live, (SELECT count(*) FROM written) AS written
FROM (SELECT) AS always LEFT JOIN mine ON true
LEFT JOIN limit_use AS other ON other.name = mine.name AND other.process <> $1::uuid AND other.wanted > 0
    AND abs(extract(epoch FROM clock_timestamp() - other.at)) < {_ROW_SECONDS}
GROUP BY mine.name
"""
"""Returns a row for each name, or one without a name if there are none. It does not wait for the disk: after a crash of
the server the processes write their rows again."""
_PURGE = f"""
DELETE FROM limit_use WHERE abs(extract(epoch FROM clock_timestamp() - at)) > 60 * {_ROW_SECONDS}
"""


class SharedLimits:
    """This process's parts of the limits that it shares. `run` exchanges them; `part` never waits."""

    def __init__(self, connection: RawConnection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._parts = LimitParts(clock)
        self._process = new_id()
        self._asked = asyncio.Event()

    def part(self, name: str, wanted: float, hold: float = HOLD_SECONDS) -> float:
        """Return this process's part of a limit, above 0 and at most 1, by how much it and the others want of it.

        `wanted` is this process's demand, in the same unit in all processes. The limit is exchanged until `hold`
        seconds after the last call: a caller asks again before, as long as the limit is busy.
        """
        self._asked.set()
        return self._parts.part(name, wanted, hold)

    async def run(self) -> None:
        """Exchange once a second while a limit is busy, until cancelled."""
        while True:
            try:
                await self.exchange()
            except Unavailable as error:
                log.warning("limits not exchanged", error_code=error.code, error=error.message)
                await asyncio.sleep(_PAUSE_SECONDS)
            await asyncio.sleep(EVERY_SECONDS)
            if self._parts.is_idle():
                self._asked.clear()
                await self._asked.wait()

    async def exchange(self) -> None:
        """Write what this process wants of its busy limits; read what the others want. Raises `StorageUnavailable`."""
        told = self._parts.to_tell()
        rows = await self._connection.fetch(_EXCHANGE, self._process, list(told), list(told.values()))
        others = {row["name"]: OthersUse(row["wanted"], row["processes"]) for row in rows if row["name"] is not None}
        self._parts.learn(others, rows[0]["live"])

    async def purge(self) -> None:
        """Delete the rows that say nothing any more. Raises `StorageUnavailable`."""
        await self._connection.fetch(_PURGE)
