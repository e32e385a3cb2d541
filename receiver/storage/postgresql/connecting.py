"""Connecting when the service starts or migrates: a failure becomes one line for the operator, with what to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncpg.exceptions import (
    ClientConfigurationError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    TargetServerAttributeNotMatched,
    TooManyConnectionsError,
)
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection

from receiver.errors import StartError
from receiver.storage.postgresql.errors import driver_error
from receiver.storage.postgresql.server import core_engine


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[AsyncConnection]:
    """Open a connection that may write, for the length of the context. Raises `StartError`, which says what to do."""
    engine = core_engine(dsn, writes=True, poolclass=NullPool)
    try:
        try:
            connection = await engine.connect()
        except Exception as error:
            raise _cannot_connect(error) from None
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await engine.dispose()


def _cannot_connect(error: Exception) -> StartError:
    """Return the error for a server that could not be connected to, in one line."""
    cause = driver_error(error)
    what = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    match cause:
        case InvalidAuthorizationSpecificationError():
            do = "correct the user or the password in RINGBACK_DATABASE_URL"
        case InvalidCatalogNameError():
            do = "create the database (createdb), or name another one in RINGBACK_DATABASE_URL"
        case TargetServerAttributeNotMatched():
            do = "the server is a read-only standby; name the primary in RINGBACK_DATABASE_URL"
        case TooManyConnectionsError():
            do = "raise the server's max_connections, or run fewer processes"
        case ClientConfigurationError() | ValueError():
            what = "its URL is not valid"  # the driver's own message may contain parts of the password
            do = "correct RINGBACK_DATABASE_URL, in the form postgresql://USER:PASSWORD@HOST/DATABASE"
        case _:
            do = "start the server, or correct the host and port in RINGBACK_DATABASE_URL"
    return StartError(f"PostgreSQL cannot be used ({what}); {do}")
