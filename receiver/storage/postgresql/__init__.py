"""PostgreSQL: for any number of processes side by side."""

from receiver.storage.postgresql.connection import PostgreSQLConnection
from receiver.storage.postgresql.notices import Notices
from receiver.storage.postgresql.raw_connection import RawConnection
from receiver.storage.postgresql.reader import PostgreSQLReader
from receiver.storage.postgresql.shared_rate_limiter import PostgreSQLRateLimiter


class PostgreSQL:
    """One server and database, as this process uses it. `dsn` is the setting's URL."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.notices = Notices(dsn)
        self._connection = RawConnection(dsn, writes=True)

    def connection(self) -> PostgreSQLConnection:
        """Return the connection for the writer."""
        return PostgreSQLConnection(self._dsn)

    def reader(self) -> PostgreSQLReader:
        """Return connections for reading."""
        return PostgreSQLReader(self._dsn)

    def rate_limiter(self, provider: str) -> PostgreSQLRateLimiter:
        """Return the budget of calls to a provider that all processes share."""
        return PostgreSQLRateLimiter(self._connection, provider)

    async def aclose(self) -> None:
        """Close what is shared with other processes."""
        await self._connection.aclose()


__all__ = ["Allotment", "Notices", "PostgreSQL", "PostgreSQLConnection", "PostgreSQLReader"]
