"""The two forms of a log record: a line of JSON for programs, a line of text for people.

A record is one line, whatever is in its values, which may come from outside; in text a traceback follows on indented
lines. Both forms are rendered here and not by structlog's own renderers, which take several times as long: one record
is written for each task that ends.
"""

import json
from collections.abc import Mapping
from textwrap import indent
from typing import Any

import orjson
from structlog.typing import EventDict

from receiver.printable import printable

_INDENT = "  "
"""Before each line of a traceback, so that none looks like a record."""
_DELETE = "\x7f"
_FIRST = frozenset({"timestamp", "level", "event", "logger", "exception"})
"""What a line of text does not have as `name=value`."""
_QUOTED = frozenset(" \t=\r\n\"'")


def json_line(_logger: Any, _method: str, record: EventDict) -> str:
    """Return a record as JSON in ASCII, which has escapes for all that a terminal would obey."""
    try:
        line = orjson.dumps(record, default=repr).decode()
    except (TypeError, UnicodeError):  # half a surrogate pair, a large number, a name that is no text
        return _slow_json(record)
    return line if line.isascii() and _DELETE not in line else _slow_json(record)


def text_line(_logger: Any, _method: str, record: EventDict) -> str:
    """Return a record as text: time, level, event, logger, then the other fields in the order of their names."""
    cleaned = clean(_logger, _method, record)
    fields = " ".join(f"{name}={_shown(cleaned[name])}" for name in sorted(cleaned.keys() - _FIRST))
    start = f"{cleaned['timestamp']} [{cleaned['level']:<9}] {cleaned['event']:<30} [{cleaned['logger']}]"
    line = f"{start} {fields}" if fields else start
    return f"{line}\n{cleaned['exception']}" if "exception" in cleaned else line


def clean(_logger: Any, _method: str, record: EventDict) -> EventDict:
    """Clean the texts of a record, which may come from outside: each record but a traceback is one line."""
    for name, value in record.items():
        if name == "exception":
            record[name] = indent(printable(str(value), lines=True), _INDENT)
        elif isinstance(value, str):
            record[name] = printable(value)
        elif not isinstance(value, int | float | None):
            record[name] = printable(repr(value))
    return record


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and _QUOTED.isdisjoint(value) else repr(value)


def _slow_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, default=repr, skipkeys=True).replace(_DELETE, "\\u007f")
