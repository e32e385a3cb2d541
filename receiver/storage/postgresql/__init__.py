"""PostgreSQL: for any number of processes on one database."""

from datetime import timedelta

from receiver.storage.postgresql.connection import PostgreSQLConnection
from receiver.storage.postgresql.notices import Notices
from receiver.storage.postgresql.partition_upkeep import ARE_NEEDED, PartitionsKept, keep_partitions
from receiver.storage.postgresql.partitions import DIVIDED, period_for
from receiver.storage.postgresql.raw_connection import RawConnection
from receiver.storage.postgresql.reader import PostgreSQLReader
from receiver.storage.postgresql.shared_limits import SharedLimits
from receiver.storage.postgresql.shared_rate_limiter import PostgreSQLRateLimiter


class PostgreSQL:
    """One database on a server, and this process's connections to it. `dsn` is the URL of the settings."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.notices = Notices(dsn)
        self._rate_limits = RawConnection(dsn, writes=True)
        self.limits = SharedLimits(self._rate_limits)

    def connection(self, *, is_main: bool = True) -> PostgreSQLConnection:
        """Return a new connection for a writer: the main one of this process, or another."""
        return PostgreSQLConnection(self._dsn, is_main=is_main)

    def reader(self) -> PostgreSQLReader:
        """Return a new reader, with connections of its own."""
        return PostgreSQLReader(self._dsn)

    def rate_limiter(self, provider: str) -> PostgreSQLRateLimiter:
        """Return the rate limiter for calls to a provider that all processes share."""
        return PostgreSQLRateLimiter(self._rate_limits, provider)

    async def keep_partitions(self, retention: timedelta) -> PartitionsKept:
        """Look after the partitions of tables that have them; what fails is left to the next time.

        Raises `StorageUnavailable` if the database does not answer at all.
        """
        if not await self._rate_limits.fetch(ARE_NEEDED, [each.table for each in DIVIDED]):
            return PartitionsKept([], [])
        return await keep_partitions(self._dsn, period_for(retention))

    async def aclose(self) -> None:
        """Close the connection of the rate limiters."""
        await self._rate_limits.aclose()


__all__ = ["Notices", "PostgreSQL", "PostgreSQLConnection", "PostgreSQLRateLimiter", "PostgreSQLReader", "SharedLimits"]
