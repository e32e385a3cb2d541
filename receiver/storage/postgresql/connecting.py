"""Connecting when the service starts or migrates: a failure becomes one line for the operator, with what to do."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from asyncpg.exceptions import (
    ClientConfigurationError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    InvalidParameterValueError,
    ProtocolViolationError,
    TargetServerAttributeNotMatched,
    TooManyConnectionsError,
    UndefinedObjectError,
)
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection

from receiver.errors import StartError
from receiver.storage.postgresql.errors import driver_error
from receiver.storage.postgresql.location import POOLER_ADVICE, read_location
from receiver.storage.postgresql.server import COMMAND_SECONDS, core_engine
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.connecting")
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@asynccontextmanager
async def connected(
    dsn: str, settings: Mapping[str, str] = _NO_SETTINGS, *, command_seconds: float | None = COMMAND_SECONDS
) -> AsyncIterator[AsyncConnection]:
    """Open a connection that may write, for the length of the context; `settings` are the session's.

    Raises `SettingsError` for a wrong URL and `StartError` if it cannot be opened; both say what to do.
    """
    if read_location(dsn).is_unbound:
        log.warning(
            "channel binding not used",
            advice="the driver cannot do it; sslmode=verify-full in RINGBACK_DATABASE_URL protects as well, because it "
            "verifies the server's certificate",
        )
    engine = core_engine(dsn, writes=True, settings=settings, command_seconds=command_seconds, poolclass=NullPool)
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


async def warn_if_not_durable(connection: AsyncConnection) -> None:
    """Log a warning for each setting of the server with which it loses what it acknowledged."""
    for name in ("fsync", "full_page_writes"):
        if (await connection.execute(text(f"SHOW {name}"))).scalar_one() == "off":
            log.warning(
                "server setting loses data",
                setting=name,
                advice=f"after a crash of its machine the server may lose what was acknowledged: set {name} = on there",
            )


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
        case UndefinedObjectError() | InvalidParameterValueError():
            do = "correct or remove that parameter in RINGBACK_DATABASE_URL"
        case ProtocolViolationError() if "startup parameter" in what:
            do = POOLER_ADVICE
        case ssl.SSLCertVerificationError():
            what = f"its certificate cannot be verified: {cause.verify_message}"
            do = "name its root certificate in RINGBACK_DATABASE_URL (sslrootcert=FILE), or use sslmode=require"
        case ConnectionError() if "SSL upgrade" in what:
            do = "the server has no TLS: switch it on, or remove sslmode from RINGBACK_DATABASE_URL"
        case ssl.SSLError():
            do = "correct sslmode and the certificates in RINGBACK_DATABASE_URL"
        case ClientConfigurationError() | ValueError():
            what = "its URL is not valid"  # the driver's own message may contain parts of the password
            do = "correct RINGBACK_DATABASE_URL, in the form postgresql://USER:PASSWORD@HOST/DATABASE"
        case _:
            do = "start the server, or correct the host and port in RINGBACK_DATABASE_URL"
    return StartError(f"PostgreSQL cannot be used ({what}); {do}")
