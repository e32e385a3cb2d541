"""The databases of campaigns: a SQLite file in the campaign's folder, or a database on a PostgreSQL that is durable."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from tests.fakes.databases import MASTER_KEY, outside
from tests.fakes.postgresql import Server

Kind = Literal["sqlite", "postgresql"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Store:
    """One database. `url` is how the checks reach it; `server` is the PostgreSQL it is on, None for SQLite."""

    kind: Kind
    url: str
    server: Server | None = None

    @property
    def name(self) -> str:
        """The name of a PostgreSQL database."""
        return self.url.split("/")[3].partition("?")[0]

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the settings that name the database; `url` is another way to reach it."""
        return {"RINGBACK_DATABASE_URL": url or self.url, "RINGBACK_SECRET_KEY": MASTER_KEY}

    def select(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query on the committed data."""
        with outside(self.url) as database:
            found = database.execute(query)
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def drop(self) -> None:
        """Remove a PostgreSQL database; SQLite's file goes with its folder."""
        if self.server is not None:
            with outside(self.server.url()) as server:
                server.execute(f"DROP DATABASE {self.name} WITH (FORCE)")


class Stores:
    """Makes new databases. The first PostgreSQL database starts a server, which all later ones share."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._numbers = count(1)

    def new(self, kind: Kind, folder: Path) -> Store:
        """Make an empty database."""
        if kind == "sqlite":
            return Store(kind, f"sqlite:///{folder / 'ringback.db'}")
        if self._server is None:
            self._server = Server.make({})
        name = f"prove_{next(self._numbers)}"
        with outside(self._server.url()) as server:
            server.execute(f"CREATE DATABASE {name}")
        return Store(kind, self._server.url(name), self._server)

    def version(self) -> str | None:
        """Return the version of PostgreSQL, if its server was started."""
        if self._server is None:
            return None
        with outside(self._server.url()) as server:
            return str(server.execute("SHOW server_version").fetchone()[0])

    def close(self) -> None:
        """Remove the server."""
        if self._server is not None:
            self._server.remove()
            self._server = None
