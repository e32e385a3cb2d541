"""Values as SQLite keeps them: documents and moments are text."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import JSON, Boolean
from sqlalchemy.types import TypeEngine

from models.columns import Moment


def write_document(value: Any) -> str:
    """Write a document."""
    return orjson.dumps(value).decode()


def read_document(value: Any) -> Any:
    """Read a document. A bare number is one already: SQLite makes numbers of what looks like one in such a column."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


@lru_cache(maxsize=256)  # a batch writes the same moment again and again
def write_moment(value: datetime | None) -> str | None:
    """Write a moment as SQLAlchemy does, so that both sort and compare as one."""
    if value is None:
        return None
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def read_moment(value: str) -> datetime:
    """Read a moment as SQLAlchemy writes it."""
    return datetime.fromisoformat(value + "+00:00")


def encoder_of(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return what writes a value of a column of this type; None if it goes as it is."""
    if isinstance(kind, JSON):
        return write_document
    return write_moment if isinstance(kind, Moment) else None


def decoder_of(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return what reads a value of a column of this type; None if it comes as it is."""
    if isinstance(kind, JSON):
        return read_document
    if isinstance(kind, Moment):
        return read_moment
    return bool if isinstance(kind, Boolean) else None
