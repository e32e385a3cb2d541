"""Classifies PostgreSQL's errors: a conflict with another process, an unavailable database, or an item's fault.

The writer treats each class in its own way. A conflict (`is_conflict`) means that another process's transaction was
first, so the same batch is tried again and may succeed; `receiver.storage.writer` says why. An unavailable database
(`is_unavailable`) fails the whole batch with 503, because no part of it could be stored. A lock that another session
holds for long (`is_locked`) is unavailability to a reader; the writer sets the writes that need it apart
(`receiver.storage.set_apart`). Anything else is the fault of
one item, which is found by splitting the batch.

The driver has errors of its own besides the server's (`InterfaceError`, `InternalClientError`): after a connection was
cut it may report its own confusion ("another operation is in progress", a message of the protocol that it did not
expect). All of them mean a connection that is of no use any more, but for those about a value or a feature.

Unique and foreign key violations are conflicts here although they may also be an item's fault: from the error alone the
two cannot be told apart, and trying again does no harm.
"""

import asyncio
from typing import Any

from asyncpg.exceptions import (
    DeadlockDetectedError,
    ForeignKeyViolationError,
    IdleInTransactionSessionTimeoutError,
    InsufficientResourcesError,
    InterfaceError,
    InternalClientError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    LockNotAvailableError,
    OperatorInterventionError,
    PostgresConnectionError,
    PostgresSystemError,
    ReadOnlySQLTransactionError,
    SerializationError,
    UniqueViolationError,
    UnsupportedClientFeatureError,
    UnsupportedServerFeatureError,
)
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from receiver.errors import StorageUnavailable

_CONFLICTS = (
    DeadlockDetectedError,
    ForeignKeyViolationError,
    SerializationError,
    UniqueViolationError,
)
_UNAVAILABLE = (
    EOFError,
    IdleInTransactionSessionTimeoutError,
    InsufficientResourcesError,
    InterfaceError,
    InternalClientError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    LockNotAvailableError,
    OperatorInterventionError,
    OSError,
    PendingRollbackError,
    PoolTimeoutError,
    PostgresConnectionError,
    PostgresSystemError,
    ReadOnlySQLTransactionError,
    TimeoutError,
)
_ABOUT_A_VALUE = (UnsupportedClientFeatureError, UnsupportedServerFeatureError, ValueError)
"""Kinds of `InterfaceError` about what the driver was given, which a new connection does not mend."""


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's own error, which SQLAlchemy may have wrapped."""
    wrapped = getattr(error, "orig", None)
    return (wrapped.__cause__ or wrapped) if wrapped is not None else error


def is_conflict(error: BaseException) -> bool:
    """Return whether another process's write caused the error, so that the same transaction may succeed now."""
    return isinstance(driver_error(error), _CONFLICTS)


def is_locked(error: BaseException) -> bool:
    """Return whether another session held a lock for longer than the session's `lock_timeout`."""
    return isinstance(driver_error(error), LockNotAvailableError)


def is_unavailable(error: BaseException) -> bool:
    """Return whether the database or the network is at fault, and not the statement or its values."""
    cause = driver_error(error)
    if isinstance(cause, asyncio.CancelledError):  # the driver's: who was cancelled does not ask
        return True
    is_about_a_value = isinstance(cause, InterfaceError) and isinstance(cause, _ABOUT_A_VALUE)
    return isinstance(cause, _UNAVAILABLE) and not is_about_a_value


def is_answer_missing(committing: "asyncio.Task[Any]") -> bool:
    """Return whether what commits a transaction, and is no longer under way, ended without the server's answer.

    An error that does not end the session is an answer: the transaction was undone.
    """
    if committing.cancelled():
        return True
    error = committing.exception()
    return error is not None and is_unavailable(error) and getattr(error, "severity_en", None) != "ERROR"


def is_committed(committing: "asyncio.Task[Any]") -> bool:
    """Return whether the server answered a COMMIT with success.

    In a transaction that a failed statement has ended, COMMIT is a ROLLBACK, which is no error.
    """
    return committing.exception() is None and bool(committing.result() == "COMMIT")


def unavailable(error: BaseException, what_fails: str, advice: str = "try again") -> StorageUnavailable:
    """Return the error for the client; `what_fails` completes "the database ...", such as "cannot be read"."""
    cause = driver_error(error)
    reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return StorageUnavailable(f"the database {what_fails} at present; {advice}", reason=reason)
