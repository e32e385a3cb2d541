"""The rate limiter that all processes share: the times at which a provider may be called are reserved in the database.

One row for each provider has the time of the next call that is free. A reservation moves it on by as many intervals as
it takes calls, in one statement, which the row's lock makes atomic. All times are of the database's clock, so that the
clocks of the processes do not matter; a process only receives how many seconds to wait.

The row is not believed beyond what can be: if the database's clock was set back, or the row comes from a backup, its
times may be hours ahead, and would stop every call until then. A pause ends within `LONGEST_PAUSE` seconds, and the
next free time is ahead of that, or of the present, by no more than the processes can have reserved
(`receiver.domain.call_budget`). What is further ahead is dropped, and counted from now.
"""

from datetime import timedelta

from receiver.domain.call_budget import LONGEST_PAUSE, most_ahead
from receiver.storage.postgresql.raw_connection import RawConnection

_PAUSE_IN_EFFECT = f"""
CASE WHEN budget.paused_until <= clock_timestamp() + interval '{LONGEST_PAUSE} s' THEN budget.paused_until END"""
"""The end of the pause, null if it is further ahead than any pause."""
_RESERVE = f"""
INSERT INTO provider_budget AS budget (provider, next_at, paused_until)
VALUES ($1, clock_timestamp() + ($2::integer - $4::integer + 1) * $3::interval, '-infinity')
ON CONFLICT (provider) DO UPDATE SET next_at = $2::integer * $3::interval + greatest(
    CASE WHEN budget.next_at <= $5::interval + greatest(clock_timestamp(), {_PAUSE_IN_EFFECT}) THEN budget.next_at END,
    {_PAUSE_IN_EFFECT},
    clock_timestamp() - ($4::integer - 1) * $3::interval
)
RETURNING extract(epoch FROM next_at - clock_timestamp())::float8 AS until_next,
    set_config('synchronous_commit', 'off', true)
"""
"""Does not wait for the disk (`synchronous_commit` off): after a crash of the server the reservations of its last
fraction of a second may be given out a second time."""
_PAUSE = f"""
INSERT INTO provider_budget AS budget (provider, next_at, paused_until)
VALUES ($1, '-infinity', clock_timestamp() + $2::interval)
ON CONFLICT (provider) DO UPDATE SET paused_until = greatest({_PAUSE_IN_EFFECT}, excluded.paused_until)
"""


class PostgreSQLRateLimiter:
    """Reserves the times at which one provider may be called."""

    def __init__(self, connection: RawConnection, provider: str) -> None:
        self._connection = connection
        self._provider = provider

    async def reserve(self, calls: int, interval: float, burst: int) -> list[float]:
        """Reserve the next `calls` times, `interval` seconds apart; return the seconds until each.

        After a time without calls, `burst` of them are at once. Raises `StorageUnavailable`.
        """
        ahead = timedelta(seconds=most_ahead(interval))
        rows = await self._connection.fetch(_RESERVE, self._provider, calls, timedelta(seconds=interval), burst, ahead)
        until_next = rows[0]["until_next"]
        return [max(0.0, until_next - (calls - index) * interval) for index in range(calls)]

    async def pause(self, seconds: float) -> None:
        """Reserve no time within the next `seconds`. Raises `StorageUnavailable`."""
        await self._connection.fetch(_PAUSE, self._provider, timedelta(seconds=seconds))
