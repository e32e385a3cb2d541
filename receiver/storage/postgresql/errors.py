"""What PostgreSQL's errors mean: the database's own trouble, another process that was first, or an item's fault."""

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
    LockNotAvailableError,
    SerializationError,
    UniqueViolationError,
)
_UNAVAILABLE = (
    IdleInTransactionSessionTimeoutError,
    InsufficientResourcesError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    OperatorInterventionError,
    OSError,
    PostgresConnectionError,
    PostgresSystemError,
    ReadOnlySQLTransactionError,
    TargetServerAttributeNotMatched,
    TimeoutError,
)


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's own error beneath what SQLAlchemy made of it."""
    wrapped = getattr(error, "orig", None)
    return (wrapped.__cause__ or wrapped) if wrapped is not None else error


def is_conflict(error: BaseException) -> bool:
    """Say whether another process's write was in the way, so that the same may well succeed now."""
    return isinstance(driver_error(error), _CONFLICTS)


def is_unavailable(error: BaseException) -> bool:
    """Say whether it is the database's or the network's trouble, and no fault of what was asked."""
    cause = driver_error(error)
    return isinstance(cause, _UNAVAILABLE) or _is_closed(cause)


def unavailable(error: BaseException, said: str) -> StorageUnavailable:
    """Return the error for the client; `said` tells what cannot be done now."""
    cause = driver_error(error)
    what = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return StorageUnavailable(f"the database {said} now ({what}); try again")


def _is_closed(error: BaseException) -> bool:
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)
