"""Values in the form that PostgreSQL accepts: characters that it refuses in text and documents are replaced."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import String
from sqlalchemy.types import TypeDecorator, TypeEngine

from models.columns import DocumentType, Moment

NUL, REPLACEMENT = "\x00", "\ufffd"
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(microseconds=1)
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def write_document(value: Any) -> str:
    """Encode a document. A NUL in it, which `jsonb` cannot store, becomes U+FFFD."""
    written = orjson.dumps(value).decode()
    return _ESCAPED_NUL.sub(r"\1\\ufffd", written) if "\\u0000" in written else written


def write_text(value: str | None) -> str | None:
    """Return a text with each NUL, which `text` cannot store, replaced by U+FFFD."""
    return value.replace(NUL, REPLACEMENT) if value is not None and NUL in value else value


def write_moment(value: datetime) -> datetime:
    """Return a time. The latest possible one is replaced by the one before: the driver would send it as infinity, and
    return that without a time zone."""
    return min(value, _LATEST)


def encoder_of(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return the encoder for values of a column of this type; None if they are passed as they are."""
    if isinstance(kind, DocumentType):
        return write_document
    if isinstance(kind, Moment):
        return write_moment
    stored = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    return write_text if isinstance(stored, String) else None
