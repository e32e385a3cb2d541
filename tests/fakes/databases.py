"""Databases for tests: a SQLite file or a database on PostgreSQL, depending on the parameter of the running test.

A test process migrates one database of each kind, and every test gets a copy of it, which takes milliseconds.
`TEST_POSTGRESQL_URL` names an existing server to use; without it the tests start their own.
"""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.string import TextLoader

from receiver.serving.master_keys import master_keys
from receiver.settings import Settings, load_settings
from receiver.storage.schema import migrate
from receiver.storage.sqlite.values import write_moment
from tests.fakes.postgresql import Server, forgetful_server

MASTER_KEY = "Kc5Vx8TqWm2Zr7HyLd4PgJ9nBf3sXe6u"
"""For PostgreSQL; with SQLite the key is in a file beside the database."""
_END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ?"


class Outside(Protocol):
    """A direct connection to a database, which bypasses the service."""

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        """Run a statement with a `?` for each parameter; return its cursor. JSON documents and times are text."""
        ...


class Databases(Protocol):
    """Databases of one kind, one for each folder."""

    def environment(self, folder: Path, *, migrated: bool = True) -> dict[str, str]:
        """Return the settings that name the folder's database, which the first call creates."""
        ...

    def drop(self) -> None:
        """Remove all of them."""
        ...


class SQLiteFiles:
    """One file in each folder; pytest removes it with the folder."""

    def environment(self, folder: Path, *, migrated: bool = True) -> dict[str, str]:
        path = folder / "ringback.db"
        settings = {"RINGBACK_DATABASE_URL": f"sqlite:///{path}"}
        if migrated and not path.exists():
            # Creates the key's file: the service refuses a database that exists without its key.
            master_keys(load_settings(settings, env_file=None))
            shutil.copy(_session.migrated_file(), path)  # with its mode
        return settings

    def drop(self) -> None:
        pass


class PostgreSQLDatabases:
    """One database for each folder, all on the session's server."""

    def __init__(self) -> None:
        self._names: dict[Path, str] = {}

    def environment(self, folder: Path, *, migrated: bool = True) -> dict[str, str]:
        if folder not in self._names:
            self._names[folder] = _session.create(_session.migrated_template() if migrated else "template0")
        return _session.environment(self._names[folder])

    def drop(self) -> None:
        names, self._names = self._names, {}
        _session.drop(*names.values())


class PostgreSQLWithLocks(PostgreSQLDatabases):
    """The same, and the service writes everything with locks at once."""

    def environment(self, folder: Path, *, migrated: bool = True) -> dict[str, str]:
        return {**super().environment(folder, migrated=migrated), "RINGBACK_OPTIMISTIC_WRITES": "false"}


class _Session:
    """What this process creates once for all of its tests: the migrated databases and the PostgreSQL server."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._server: Server | None = None
        self._template: str | None = None
        self._numbers = count(1)

    def migrated_file(self) -> Path:
        """Return the path of a migrated SQLite file to copy."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ringback-tests-"))
            _migrate({"RINGBACK_DATABASE_URL": f"sqlite:///{self._folder / 'migrated.db'}"})
        return self._folder / "migrated.db"

    def migrated_template(self) -> str:
        """Return the name of a migrated PostgreSQL database to copy."""
        if self._template is None:
            self._template = self.create("template0")
            _migrate(self.environment(self._template))
        return self._template

    def environment(self, name: str) -> dict[str, str]:
        """Return the settings that name a PostgreSQL database."""
        return _on(urlsplit(self._maintenance())._replace(path=f"/{name}").geturl())

    def create(self, template: str) -> str:
        """Create a PostgreSQL database; return its name, which is unique even on a server that others use too."""
        name = f"ringback_test_{os.getpid()}_{next(self._numbers)}"
        with outside(self._maintenance()) as server:
            # In memory, files are copied in a tenth of the time in which their pages are written to the log.
            server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, *names: str) -> None:
        """Remove PostgreSQL databases, even those that still have connections."""
        if names:
            with outside(self._maintenance()) as server:
                for name in names:
                    server.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def end(self) -> None:
        """Remove everything that was created, and reset to the initial state."""
        if self._folder is not None:
            shutil.rmtree(self._folder)
        if self._server is not None:
            self._server.remove()
        elif self._template is not None:
            self.drop(self._template)
        self.__init__()  # type: ignore[misc]

    def _maintenance(self) -> str:
        """Return the server's URL. Without `TEST_POSTGRESQL_URL`, the first call starts a server."""
        given = os.environ.get("TEST_POSTGRESQL_URL")
        if given is not None:
            return given
        if self._server is None:
            self._server = forgetful_server()
        return self._server.url()


_session = _Session()
_kinds: dict[str, type[Databases]] = {
    "sqlite": SQLiteFiles,
    "postgresql": PostgreSQLDatabases,
    "postgresql with locks": PostgreSQLWithLocks,
}
present: Databases = SQLiteFiles()
"""The databases of the running test."""


def begin(kind: str) -> Databases:
    """Switch to databases of this kind, one of `_kinds`; return the new `present`."""
    global present
    present = _kinds[kind]()
    return present


def end_session() -> None:
    """Remove what this process created for all of its tests."""
    _session.end()


def settings_in(folder: Path, *, migrated: bool = True) -> Settings:
    """Return settings that name the folder's database; all others have their defaults."""
    return load_settings(present.environment(folder, migrated=migrated), env_file=None)


async def migrated_on(server: Server) -> dict[str, Any]:
    """Migrate the database of a test's own server; return the settings for it as keyword arguments of a world."""
    await migrate(load_settings(_on(server.url()), env_file=None))
    return {"database_url": server.url(), "secret_key": MASTER_KEY}


@contextmanager
def outside(url: str) -> Iterator[Outside]:
    """Connect to a database directly, bypassing the service; each statement is its own transaction."""
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)) as connection:
            yield connection
    else:
        with closing(psycopg.connect(url, autocommit=True, cursor_factory=_Cursor)) as connection:
            # The service may run in this thread: it cannot release a lock while this connection waits for it.
            connection.execute("SET lock_timeout = '5s'")
            connection.execute("SET timezone = 'UTC'")
            for kind, loader in (("uuid", TextLoader), ("jsonb", TextLoader), ("timestamptz", _MomentLoader)):
                connection.adapters.register_loader(kind, loader)
            yield connection


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Make every write fail: hold SQLite's write lock, or set PostgreSQL to read-only, as a standby is."""
    if url.startswith("sqlite:///"):
        with outside(url) as database:
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("ROLLBACK")
        return
    name = urlsplit(url).path.removeprefix("/")
    elsewhere = urlsplit(url)._replace(path="/postgres").geturl()
    with outside(elsewhere) as server:
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        server.execute(_END_SESSIONS, (name,))
        yield
        server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        server.execute(_END_SESSIONS, (name,))


class _Cursor(psycopg.Cursor[Any]):
    """Accepts `?` for parameters, as SQLite does."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> "_Cursor":
        query = query.replace("%", "%%").replace("?", "%s") if params else query
        return super().execute(query, params or None, **options)


class _MomentLoader(TimestamptzLoader):
    """Returns a timestamp as the text that SQLite stores for it."""

    def load(self, data: Any) -> Any:
        return "-infinity" if bytes(data) == b"-infinity" else write_moment(super().load(data))


def _on(url: str) -> dict[str, str]:
    return {"RINGBACK_DATABASE_URL": url, "RINGBACK_SECRET_KEY": MASTER_KEY}


def _migrate(environment: dict[str, str]) -> None:
    """Migrate in another thread with its own event loop: this thread's loop may be running."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, migrate(load_settings(environment, env_file=None))).result()
