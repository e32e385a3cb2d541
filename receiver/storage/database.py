"""One database: connections to read from, and the writer through which all writes go."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from sqlalchemy import Executable, Select, func, literal, select, text

from receiver.domain.limit_parts import Part, whole
from receiver.errors import StorageUnavailable
from receiver.large_bodies import read_apart
from receiver.settings import Settings
from receiver.storage.hot import HotQuery, HotRow
from receiver.storage.sqlite import SQLiteConnection, SQLiteReader
from receiver.storage.sqlite.upkeep import SQLiteUpkeep
from receiver.storage.transaction import Transaction, Values
from receiver.storage.writer import Writer

if TYPE_CHECKING:
    from receiver.storage.postgresql import PostgreSQL


Query = Select[Any]
"""A query for `Database.read`; the function of this package that returns it says which columns its rows have."""


class Snapshot(Protocol):
    """Reads the committed rows as they were at one moment, however many queries are run."""

    async def read(self, statement: Executable) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        ...


class Reader(Protocol):
    """Reads committed rows."""

    async def read(self, statement: Executable, parameters: Values | None = None) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        ...

    async def read_by_keys(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Run a query of the hot path; return its rows by table. Raises `StorageUnavailable`."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Open a snapshot for several queries. Raises `StorageUnavailable`."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class Database:
    """Reads run on a few connections of their own; writes go through `writer`, one commit for many.

    `shared` is what several processes on one PostgreSQL share (notices, rate limits); None on SQLite, where this is the
    only process. `part` tells this process's part of a limit that all share. `upkeep` looks after the files of SQLite
    while it runs; None on PostgreSQL.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        shared: "PostgreSQL | None" = None,
        upkeep: SQLiteUpkeep | None = None,
    ) -> None:
        self._reader = reader
        self.writer = writer
        self.shared = shared
        self.part: Part = whole if shared is None else shared.limits.part
        self.upkeep = upkeep

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Open the database that the settings name. Its schema must be current (`receiver.storage.schema`)."""
        if settings.is_sqlite:
            path = settings.sqlite_path
            connection = SQLiteConnection(path)
            reserve = connection.reserve
            writer = Writer(
                connection, capacity=settings.writer_queue, is_scarce=lambda: reserve.is_needed, is_on_loop=True
            )
            database = cls(SQLiteReader(path, connection), writer, upkeep=SQLiteUpkeep(path, writer, reserve))
        else:
            from receiver.storage.postgresql import PostgreSQL

            server = PostgreSQL(settings.database_url)
            heavy = Writer(server.connection(is_main=False), capacity=settings.writer_queue)
            main = server.connection()
            optimistic = main.begin_optimistic if settings.optimistic_writes else None
            writer = Writer(main, capacity=settings.writer_queue, heavy=heavy, begin_optimistic=optimistic)
            database = cls(server.reader(), writer, server)
        database.writer.start()
        return database

    async def read(self, statement: Executable, parameters: Values | None = None) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        return await self._reader.read(statement, parameters)

    async def read_by_keys(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Run a query of the hot path for a few keys; return its rows by table. Raises `StorageUnavailable`."""
        return await self._reader.read_by_keys(query, keys)

    async def read_large_by_keys(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Do the same where rows may be large: their documents are decoded apart from the event loop.

        Raises `StorageUnavailable`.
        """
        rows = await self.read(query.among(keys))
        return await read_apart(lambda: [query.row(row.values()) for row in rows])

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Open a snapshot: what its queries read is of one moment. Keep it short. Raises `StorageUnavailable`."""
        return self._reader.snapshot()

    async def check(self) -> None:
        """Return when the database has completed a read and a write, which waits for the disk.

        Raises `StorageUnavailable`, `WriterFull`.
        """
        await self.read(select(literal(1)))
        if self.shared is not None:
            from receiver.storage.postgresql.table_locks import refuse_locked, table_locks

            refuse_locked(await self.read(table_locks()))
        await self.writer.run(_write_something)
        if self.upkeep is not None and self.upkeep.reserve.is_needed:
            raise StorageUnavailable("the disk is full: this write has used the room that is kept for others")

    async def version(self) -> str:
        """Return the version of the database's software. Raises `StorageUnavailable`."""
        found = func.sqlite_version() if self.shared is None else func.current_setting("server_version")
        return str((await self.read(select(found.label("version"))))[0]["version"])

    async def processes(self) -> int:
        """Return how many processes of Ringback serve this database. Raises `StorageUnavailable`."""
        if self.shared is None:
            return 1
        from receiver.storage.postgresql.own_sessions import LIVE_WRITERS

        return int((await self.read(text(f"SELECT ({LIVE_WRITERS}) AS live")))[0]["live"])

    async def aclose(self) -> None:
        """Commit the writes that wait, then close every connection."""
        await self.writer.aclose()
        await self._reader.aclose()
        if self.shared is not None:
            await self.shared.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _write_something(tx: Transaction) -> None:
    await tx.write_to_disk()
