"""Reading a database beside the process that serves it: nothing is changed, and nothing is kept open afterwards."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Executable, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.sqlite import configure
from receiver.storage.sqlite.backup import open_served
from receiver.storage.sqlite.values import read_document

ReadBeside = Callable[..., Awaitable[list[dict[str, Any]]]]
"""Runs a query, with parameters if it has any; returns its rows by column name. Raises `StartError`."""


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[ReadBeside]:
    """Open the database that the settings name, for the length of the context. Raises `StartError`."""
    if not settings.is_sqlite:
        from receiver.storage.postgresql.connecting import connected

        async with connected(settings.database_url, {"default_transaction_read_only": "on"}) as server:

            async def ask(statement: Executable, parameters: Any = None) -> list[dict[str, Any]]:
                try:
                    return [dict(row._mapping) for row in await server.execute(statement, parameters)]
                except DBAPIError as error:
                    raise _cannot_read(error) from None

            yield ask
        return
    engine = create_engine(
        "sqlite://", creator=lambda: _opened(settings), poolclass=NullPool, json_deserializer=read_document
    )
    try:
        with engine.connect() as file:

            async def read(statement: Executable, parameters: Any = None) -> list[dict[str, Any]]:
                try:
                    return [dict(row._mapping) for row in file.execute(statement, parameters)]
                except DBAPIError as error:
                    raise _cannot_read(error) from None

            yield read
    finally:
        engine.dispose()


def _opened(settings: Settings) -> Any:
    connection = open_served(settings.sqlite_path)
    configure(connection, writes=False)
    return connection


def _cannot_read(error: DBAPIError) -> StartError:
    return StartError(f"the database cannot be read ({' '.join(str(error.orig).split())[:200]})")
