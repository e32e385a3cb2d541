"""Connecting when the service starts or migrates: a failure becomes one line for the operator, with what to do."""

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from urllib.parse import urlsplit

from asyncpg.exceptions import (
    ClientConfigurationError,
    DuplicatePreparedStatementError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    InvalidParameterValueError,
    InvalidSQLStatementNameError,
    ProtocolViolationError,
    TargetServerAttributeNotMatched,
    TooManyConnectionsError,
    UndefinedObjectError,
)
from sqlalchemy import NullPool, text

from receiver.errors import DatabaseAway, StartError
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.errors import driver_error, is_unavailable
from receiver.storage.postgresql.location import POOLER_ADVICE, PostgreSQLLocation, read_location
from receiver.storage.postgresql.pooling import refuse_transaction_pooling
from receiver.storage.postgresql.server import COMMAND_SECONDS, core_engine
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.connecting")
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@asynccontextmanager
async def connected(
    dsn: str, settings: Mapping[str, str] = _NO_SETTINGS, *, command_seconds: float | None = COMMAND_SECONDS
) -> AsyncIterator[CoreConnection]:
    """Open a connection that may write, for the length of the context; `settings` are the session's.

    Raises `SettingsError` for a wrong URL, `StartError` if it cannot be opened, and `DatabaseAway` if that may pass by
    itself; all say what to do.
    """
    location = read_location(dsn)
    engine = core_engine(dsn, writes=True, settings=settings, command_seconds=command_seconds, poolclass=NullPool)
    try:
        try:
            connection = await engine.open()
        except Exception as error:
            raise _cannot_connect(error, location) from None
        if location.is_unbound:
            log.warning(
                "channel binding not used",
                advice="the driver cannot do it; sslmode=verify-full in RINGBACK_DATABASE_URL protects as well, "
                "because it verifies the server's certificate",
            )
        try:
            await refuse_transaction_pooling(dsn, connection)
            yield connection
        finally:
            await connection.close()
    finally:
        await engine.dispose()


async def warn_if_not_durable(connection: CoreConnection) -> None:
    """Log a warning for each setting of the server with which it loses what it acknowledged."""
    for name in ("fsync", "full_page_writes"):
        if (await connection.execute(text(f"SHOW {name}"))).scalar_one() == "off":
            log.warning(
                "server setting loses data",
                setting=name,
                advice=f"after a crash of its machine the server may lose what was acknowledged: set {name} = on there",
            )


def _cannot_connect(error: Exception, location: PostgreSQLLocation) -> StartError:
    """Return the error for a server that could not be connected to, in one line."""
    cause = driver_error(error)
    what = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    kind = StartError
    match cause:
        case InvalidAuthorizationSpecificationError():
            do = _sign_in_advice(what)
        case InvalidCatalogNameError():
            do = "create the database (createdb), or name another one in RINGBACK_DATABASE_URL"
        case TargetServerAttributeNotMatched():
            kind, do = DatabaseAway, "the server is a read-only standby; name the primary in RINGBACK_DATABASE_URL"
        case TooManyConnectionsError():
            kind, do = DatabaseAway, "raise the server's max_connections, or run fewer processes"
        case UndefinedObjectError() | InvalidParameterValueError():
            do = "correct or remove that parameter in RINGBACK_DATABASE_URL"
        case ProtocolViolationError() if "authentication failed" in what or "no such user" in what:
            do = "correct the user or the password in RINGBACK_DATABASE_URL, and in the pooler's list of users"
        case ProtocolViolationError() if "no such database" in what:
            do = "name a database in RINGBACK_DATABASE_URL that the pooler knows"
        case ProtocolViolationError() if "startup parameter" in what:
            do = "remove that parameter from RINGBACK_DATABASE_URL, or name the server itself: this pooler refuses it"
        case InvalidSQLStatementNameError() | DuplicatePreparedStatementError():
            do = POOLER_ADVICE
        case ssl.SSLCertVerificationError():
            what = f"its certificate cannot be verified: {cause.verify_message}"
            do = _certificate_advice(cause.verify_message)
        case ConnectionError() if "SSL upgrade" in what:
            do = "the server has no TLS: switch it on, or remove sslmode from RINGBACK_DATABASE_URL"
        case ssl.SSLError():
            do = "correct sslmode and the certificates in RINGBACK_DATABASE_URL"
        case ClientConfigurationError() | ValueError():
            what = "its URL is not valid"  # the driver's own message may contain parts of the password
            do = "correct RINGBACK_DATABASE_URL, in the form postgresql://USER:PASSWORD@HOST/DATABASE"
        case socket.gaierror():
            kind, what = DatabaseAway, f"the host {urlsplit(location.dsn).hostname} is not known: {cause.strerror}"
            do = "correct the host in RINGBACK_DATABASE_URL, or the name service"
        case _:
            kind = DatabaseAway if is_unavailable(cause) else StartError
            do = "start the server, or correct the host and port in RINGBACK_DATABASE_URL"
    return kind(f"PostgreSQL cannot be used ({what}); {do}")


def _sign_in_advice(what: str) -> str:
    if "certificate" in what:
        return "name a client certificate that the server accepts (sslcert=FILE&sslkey=FILE in RINGBACK_DATABASE_URL)"
    if "pg_hba.conf" in what:
        return "let the server's pg_hba.conf allow this, or use what it allows (sslmode=require for TLS)"
    return "correct the user or the password in RINGBACK_DATABASE_URL"


def _certificate_advice(reason: str) -> str:
    if "mismatch" in reason:
        return "name the host in RINGBACK_DATABASE_URL as its certificate does, or use sslmode=verify-ca"
    if "expired" in reason or "not yet valid" in reason:
        return "renew the server's certificate, or correct the clock of this machine"
    return (
        "name the certificate of the authority that signed it in RINGBACK_DATABASE_URL (sslrootcert=FILE), or use "
        "sslmode=require without sslrootcert"
    )
