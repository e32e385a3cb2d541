"""Which errors mean that PostgreSQL cannot be used at present, and which are the fault of a statement or a value."""

import asyncio
import ssl

import asyncpg
import pytest
from asyncpg.exceptions import _base
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from receiver.errors import StorageUnavailable
from receiver.storage.postgresql import errors

UNAVAILABLE = [
    asyncpg.InternalClientError("got result for unknown protocol state 3"),
    asyncpg.exceptions.ProtocolError("unexpected message"),
    asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    asyncpg.InterfaceError("the underlying connection is closed"),
    asyncpg.exceptions.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.exceptions.AdminShutdownError("terminating connection"),
    asyncpg.exceptions.TargetServerAttributeNotMatched("none of the hosts match"),
    asyncio.CancelledError(),
    asyncio.IncompleteReadError(b"", 5),
    ConnectionResetError(),
    ssl.SSLCertVerificationError("expired"),
    ssl.SSLError("record layer failure"),
    TimeoutError(),
    PoolTimeoutError("QueuePool limit"),
    PendingRollbackError("Can't reconnect until invalid transaction is rolled back"),
]
OUR_FAULT = [
    _base.DataError("invalid input for query argument $1"),
    _base.ClientConfigurationError("bad sslmode"),
    _base.UnsupportedClientFeatureError("not supported"),
    asyncpg.exceptions.UndefinedColumnError("no such column"),
    asyncpg.exceptions.UniqueViolationError("twice"),
    ValueError("of our own"),
]


def wrapped(cause: BaseException) -> DBAPIError:
    """Return an error as SQLAlchemy passes it on."""
    inner = Exception("translated")
    inner.__cause__ = cause
    return DBAPIError("SELECT 1", None, inner)


@pytest.mark.parametrize("error", UNAVAILABLE, ids=lambda error: type(error).__name__)
def test_a_connection_that_is_of_no_use_any_more_is_unavailable(error: BaseException) -> None:
    assert errors.is_unavailable(error)
    assert errors.is_unavailable(wrapped(error))
    assert isinstance(errors.unavailable(error, "cannot be read"), StorageUnavailable)


@pytest.mark.parametrize("error", OUR_FAULT, ids=lambda error: type(error).__name__)
def test_a_wrong_value_or_statement_is_not_taken_for_an_unavailable_database(error: BaseException) -> None:
    assert not errors.is_unavailable(error)
    assert not errors.is_unavailable(wrapped(error))


@pytest.mark.parametrize(("severity", "is_missing"), [("ERROR", False), ("FATAL", True), (None, True)])
async def test_an_error_after_which_the_session_goes_on_is_an_answer(severity: str | None, is_missing: bool) -> None:
    error = asyncpg.exceptions.ReadOnlySQLTransactionError("read-only")
    if severity is not None:
        error.severity_en = severity
    committing = asyncio.ensure_future(_failing(error))
    await asyncio.wait({committing})
    assert errors.is_answer_missing(committing) is is_missing


async def _failing(error: Exception) -> None:
    raise error
