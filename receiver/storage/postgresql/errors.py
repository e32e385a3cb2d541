"""Classifies PostgreSQL's errors: a conflict with another process, an unavailable database, or an item's fault.

The writer treats each class in its own way. A conflict (`is_conflict`) means that another process's transaction was
first, so the same batch is tried again and may succeed; `receiver.storage.writer` says why. An unavailable database
(`is_unavailable`) fails the whole batch with 503, because no part of it could be stored. A lock that another session
holds for long (`is_locked`) is unavailability to a reader; the writer sets the writes that need it apart
(`receiver.storage.set_apart`). Anything else is the fault of
one item, which is found by splitting the batch.

Unique and foreign key violations are conflicts here although they may also be an item's fault: from the error alone the
two cannot be told apart, and trying again does no harm.
"""

import asyncpg
from asyncpg.exceptions import (
    DeadlockDetectedError,
    ForeignKeyViolationError,
    IdleInTransactionSessionTimeoutError,
    InsufficientResourcesError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    LockNotAvailableError,
    OperatorInterventionError,
    PostgresConnectionError,
    PostgresSystemError,
    ReadOnlySQLTransactionError,
    SerializationError,
    TargetServerAttributeNotMatched,
    UniqueViolationError,
)

from receiver.errors import StorageUnavailable

_CONFLICTS = (
    DeadlockDetectedError,
    ForeignKeyViolationError,
    SerializationError,
    UniqueViolationError,
)
_UNAVAILABLE = (
    IdleInTransactionSessionTimeoutError,
    InsufficientResourcesError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    LockNotAvailableError,
    OperatorInterventionError,
    OSError,
    PostgresConnectionError,
    PostgresSystemError,
    ReadOnlySQLTransactionError,
    TargetServerAttributeNotMatched,
    TimeoutError,
)


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
    return isinstance(cause, _UNAVAILABLE) or _is_closed(cause)


def unavailable(error: BaseException, what_fails: str) -> StorageUnavailable:
    """Return the error for the client; `what_fails` completes "the database ...", such as "cannot be read"."""
    cause = driver_error(error)
    reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return StorageUnavailable(f"the database {what_fails} at present ({reason}); try again")


def _is_closed(error: BaseException) -> bool:
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)
