"""Values in the form that SQLite stores: documents and times are text."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, cast

import orjson
from sqlalchemy import Boolean
from sqlalchemy.types import TypeEngine

from models import states
from models.columns import DocumentType, Moment


def adapt_values() -> None:
    """Tell the driver how to bind what is neither a number nor a text.

    It would bind all of it as it is, but only after it has searched each value for what may convert it: for a null that
    takes twice as long as all the rest. A row of a task has ten of them.
    """
    sqlite3.register_adapter(type(None), cast("Callable[[None], None]", {}.get))  # quicker than a function in Python
    sqlite3.register_adapter(bool, int)
    for each in vars(states).values():
        if isinstance(each, type) and issubclass(each, StrEnum):
            sqlite3.register_adapter(each, attrgetter("_value_"))


def write_document(value: Any) -> str:
    """Encode a document."""
    return orjson.dumps(value).decode()


def read_document(value: Any) -> Any:
    """Decode a document. One that is a number comes as a number: SQLite converts such text in a column of this type."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


@lru_cache(maxsize=256)  # the rows of a batch have the same few times
def write_moment(value: datetime | None) -> str | None:
    """Encode a time in the form that SQLAlchemy writes, so that times written either way sort and compare together."""
    if value is None:
        return None
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def read_moment(value: str) -> datetime:
    """Decode a time in the form that SQLAlchemy writes."""
    return datetime.fromisoformat(value + "+00:00")


def encoder_of(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return the encoder for values of a column of this type; None if they are stored as they are."""
    if isinstance(kind, DocumentType):
        return write_document
    return write_moment if isinstance(kind, Moment) else None


def decoder_of(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return the decoder for values of a column of this type; None if they are right as they are."""
    if isinstance(kind, DocumentType):
        return read_document
    if isinstance(kind, Moment):
        return read_moment
    return bool if isinstance(kind, Boolean) else None
