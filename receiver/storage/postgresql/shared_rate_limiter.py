"""The budget of calls to a provider that all processes share: moments are given away, by the database's own clock."""

from datetime import timedelta

from receiver.storage.postgresql.raw_connection import RawConnection

_RESERVE = """
INSERT INTO provider_budget AS budget (provider, next_at, paused_until)
VALUES ($1, clock_timestamp() + ($2::integer - $4::integer + 1) * $3::interval, '-infinity')
ON CONFLICT (provider) DO UPDATE SET next_at = $2::integer * $3::interval + greatest(
    budget.next_at, budget.paused_until, clock_timestamp() - ($4::integer - 1) * $3::interval
)
RETURNING extract(epoch FROM next_at - clock_timestamp())::float8 AS until_next,
    set_config('synchronous_commit', 'off', true)
"""
"""Waits for no disk: a server that crashes may give the moments of its last instant away once more."""
_PAUSE = """
INSERT INTO provider_budget AS budget (provider, next_at, paused_until)
VALUES ($1, '-infinity', clock_timestamp() + $2::interval)
ON CONFLICT (provider) DO UPDATE SET paused_until = greatest(budget.paused_until, excluded.paused_until)
"""


class PostgreSQLRateLimiter:
    """Gives away the moments at which a provider may be called."""

    def __init__(self, connection: RawConnection, provider: str) -> None:
        self._connection = connection
        self._provider = provider

    async def reserve(self, calls: int, interval: float, burst: int) -> list[float]:
        """Take the next `calls` moments, `interval` seconds apart; return the seconds until each.

        After a quiet time `burst` of them are at once. Raises `StorageUnavailable`.
        """
        rows = await self._connection.fetch(_RESERVE, self._provider, calls, timedelta(seconds=interval), burst)
        until_next = rows[0]["until_next"]
        return [max(0.0, until_next - (calls - place) * interval) for place in range(calls)]

    async def pause(self, seconds: float) -> None:
        """Give no moment away that comes before so many seconds. Raises `StorageUnavailable`."""
        await self._connection.fetch(_PAUSE, self._provider, timedelta(seconds=seconds))
