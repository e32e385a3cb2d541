"""PostgreSQL: for any number of processes side by side."""

from receiver.storage.postgresql.connection import PostgreSQLConnection
from receiver.storage.postgresql.notices import Notices
from receiver.storage.postgresql.raw_connection import Line
from receiver.storage.postgresql.reader import PostgreSQLReader
from receiver.storage.postgresql.shared_rate_limiter import Allotment


class PostgreSQL:
    """One server and database, as this process uses it. `dsn` is the setting's URL."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.notices = Notices(dsn)
        self._line = Line(dsn, writes=True)

    def connection(self) -> PostgreSQLConnection:
        """Return the connection for the writer."""
        return PostgreSQLConnection(self._dsn)

    def reader(self) -> PostgreSQLReader:
        """Return connections for reading."""
        return PostgreSQLReader(self._dsn)

    def allotment(self, provider: str) -> Allotment:
        """Return the budget of calls to a provider that all processes share."""
        return Allotment(self._line, provider)

    async def aclose(self) -> None:
        """Close what is shared with other processes."""
        await self._line.aclose()


__all__ = ["Allotment", "Notices", "PostgreSQL", "PostgreSQLConnection", "PostgreSQLReader"]
