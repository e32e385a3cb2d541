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
_PLAIN = (int, float, type(None))
"""The types of values that have no text from outside."""


def json_line(_logger: Any, _method: str, record: EventDict) -> str:
    """Return a record as JSON in ASCII, which has escapes for all that a terminal would obey."""
    try:
        line = orjson.dumps(record, default=repr).decode()
    except (TypeError, UnicodeError):  # half a surrogate pair, a large number, a name that is no text
        return _slow_json(record)
    return line if line.isascii() and _DELETE not in line else _slow_json(record)


def text_line(_logger: Any, _method: str, record: EventDict) -> str:
    """Return a record as text: time, level, event, logger, then the other fields in the order of their names."""
    event, logger = _cleaned(record["event"]), _cleaned(record["logger"])
    start = f"{record['timestamp']} [{record['level']:<9}] {event:<30} [{logger}]"
    names = sorted(record.keys() - _FIRST)
    values = [value if isinstance(value := record[name], str) else repr(value) for name in names]
    # Most records have nothing to clean or to quote, which is seen in all of their values at once.
    together = "".join(values)
    if not together.isprintable() or _is_quoted(together):
        values = [_shown(_cleaned(record[name])) for name in names]
    line = " ".join([start, *map("=".join, zip(names, values, strict=True))])
    return f"{line}\n{_indented(record['exception'])}" if "exception" in record else line


def clean(_logger: Any, _method: str, record: EventDict) -> EventDict:
    """Clean the texts of a record, which may come from outside: each record but a traceback is one line."""
    for name, value in record.items():
        record[name] = _indented(value) if name == "exception" else _cleaned(value)
    return record


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    return value if isinstance(value, _PLAIN) else printable(repr(value))


def _indented(exception: Any) -> str:
    return indent(printable(str(exception), lines=True), _INDENT)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and not _is_quoted(value) else repr(value)


def _is_quoted(text: str) -> bool:
    """Return whether a text that is printable has what would make `name=value` ambiguous."""
    return " " in text or "=" in text or '"' in text or "'" in text


def _slow_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, default=repr, skipkeys=True).replace(_DELETE, "\\u007f")
