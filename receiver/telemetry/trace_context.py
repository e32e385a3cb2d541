"""The trace that a request belongs to: a `traceparent` of W3C Trace Context (https://www.w3.org/TR/trace-context/).

It is a text here, and costs no package: tasks keep that of their create and deliveries pass it on, also where the
service records no spans of its own (`receiver.telemetry.tracing`).
"""

import re
from collections.abc import Sequence
from contextvars import ContextVar

TRACEPARENT = "traceparent"
"""The name of the header."""
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VERSION = "00"
_SAMPLED = 1

_current: ContextVar[str | None] = ContextVar("trace_context", default=None)


def read_traceparent(values: Sequence[str]) -> str | None:
    """Return the context that a request's `traceparent` headers name, 55 characters; None if they are not valid.

    One of a later version is read as far as this version knows it.
    """
    if len(values) != 1:
        return None
    given = values[0].strip(" \t")
    found = _FORM.fullmatch(given)
    if found is None:
        return None
    version, ids, flags, more = found.groups()
    if version == _VERSION:
        return None if more else given
    return f"{_VERSION}-{ids}-{int(flags, 16) & _SAMPLED:02x}"


def set_trace_context(traceparent: str | None) -> None:
    """Set the trace of the request that is handled at present; what it starts and does not wait for keeps it."""
    _current.set(traceparent)


def current_trace_context() -> str | None:
    """Return the trace of the request that is handled at present; None if it names none."""
    return _current.get()
