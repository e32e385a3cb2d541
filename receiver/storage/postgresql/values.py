"""Values as PostgreSQL takes them: what it refuses in text and documents is replaced."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import JSON, String
from sqlalchemy.types import TypeDecorator, TypeEngine

from models.columns import Moment

NUL, REPLACEMENT = "\x00", "\ufffd"
_LAST = datetime.max.replace(tzinfo=UTC) - timedelta(microseconds=1)
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def write_document(value: Any) -> str:
    """Write a document. A NUL in it, which no `jsonb` can hold, becomes U+FFFD."""
    written = orjson.dumps(value).decode()
    return _ESCAPED_NUL.sub(r"\1\\ufffd", written) if "\\u0000" in written else written


def write_text(value: str | None) -> str | None:
    """Write a text. A NUL in it, which no `text` can hold, becomes U+FFFD."""
    return value.replace(NUL, REPLACEMENT) if value is not None and NUL in value else value


def write_moment(value: datetime) -> datetime:
    """Write a moment. The last one that there is means infinity to the driver, which forgets its time zone."""
    return min(value, _LAST)


def encoder_of(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return what writes a value of a column of this type; None if it goes as it is."""
    if isinstance(kind, JSON):
        return write_document
    if isinstance(kind, Moment):
        return write_moment
    stored = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    return write_text if isinstance(stored, String) else None
