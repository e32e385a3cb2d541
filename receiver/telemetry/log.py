"""Structured log records."""

import logging
import sys
from textwrap import indent
from typing import Any, TextIO, cast

import structlog

from receiver.printable import printable

_INDENT = "  "
"""Before each line of a traceback, so that none looks like a record."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _StandardError:
    """Writes to `sys.stderr` as it is at each write: it may be replaced later, and the earlier file closed."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _LibraryRecords(logging.Handler):
    """Writes what libraries log (uvicorn, asyncio) as our own records: in their form, and cleaned like them."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(logger_name=record.name)
        exception = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
        log.log(record.levelno, record.getMessage(), **({"exc_info": exception} if exception else {}))


_library_records = _LibraryRecords(logging.WARNING)


def configure_logging(log_format: str = "text", log_level: str = "info") -> None:
    """Write log records of `log_level` and above to standard error: `text` for people or `json` for programs.

    What libraries log passes through it too, from `warning` on, where they have no handler of their own.
    """
    logging.getLogger().addHandler(_library_records)  # once, however often it is called
    plain = structlog.dev.plain_traceback  # the rich one shows the values of variables, including secrets
    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    is_json = log_format == "json"  # which escapes everything but ASCII
    renderers: list[Any] = [structlog.processors.JSONRenderer()] if is_json else [_clean, for_people]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_logger,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        # One write per line, so that the lines of several workers do not mix.
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )


def _clean(_logger: Any, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Clean the texts of a record, which may come from outside: each record but a traceback is one line."""
    for name, value in record.items():
        if name == "exception":
            record[name] = indent(printable(str(value), lines=True), _INDENT)
        elif isinstance(value, str):
            record[name] = printable(value)
        elif not isinstance(value, int | float | None):
            record[name] = printable(repr(value))
    return record


def _add_logger(_logger: Any, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    # structlog has its own argument `logger`, so the name arrives here as `logger_name`.
    record["logger"] = record.pop("logger_name", "")
    return record


def get_logger(name: str) -> Any:
    """Return a logger whose records carry `name` as `logger`: the module's path below `receiver`.

    The logger is created on first use: modules call this when they are imported, before the settings are read.
    """
    return structlog.get_logger(logger_name=name)
