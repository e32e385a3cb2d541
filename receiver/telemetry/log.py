"""Structured log records."""

import logging
import select
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

from receiver.clock import wall_text
from receiver.telemetry.error_reports import report_exception
from receiver.telemetry.records import clean, json_line, text_line
from receiver.telemetry.request_ids import current_request_id

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


_REPORTED = frozenset({"error", "critical", "exception"})


_ATOMIC_BYTES = getattr(select, "PIPE_BUF", 512)
"""What several processes write to one pipe does not mix up to this size: POSIX promises 512, Linux has 4,096."""
_held: ContextVar[list[str] | None] = ContextVar("held", default=None)
"""The lines that `lines_together` is to write."""


class _StandardError:
    """Writes to `sys.stderr` as it is at each write: it may be replaced later, and the earlier file closed."""

    def write(self, text: str) -> int:
        held = _held.get()
        if held is None:
            return sys.stderr.write(text)
        held.append(text)
        return len(text)

    def flush(self) -> None:
        if _held.get() is None:
            sys.stderr.flush()


@contextmanager
def lines_together() -> Iterator[None]:
    """Write the records that are logged in this context when it ends: several in one write, each line as it is.

    For a loop that logs a record of each of many things. It may start no task, which would keep this context.
    """
    held: list[str] = []
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
        for text in _joined(held):
            sys.stderr.write(text)
        sys.stderr.flush()


def _joined(lines: list[str]) -> Iterator[str]:
    """Yield the lines, joined to texts that a pipe takes at once; a longer line by itself."""
    texts: list[str] = []
    size = 0
    for line in lines:
        most = len(line) if line.isascii() else len(line.encode(errors="replace"))
        if texts and size + most > _ATOMIC_BYTES:
            yield "".join(texts)
            texts, size = [], 0
        texts.append(line)
        size += most
    if texts:
        yield "".join(texts)


class _LibraryRecords(logging.Handler):
    """Writes what libraries log (uvicorn, asyncio) as our own records: in their form, and cleaned like them."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(logger_name=record.name)
        exception = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
        log.log(record.levelno, record.getMessage(), **({"exc_info": exception} if exception else {}))


_library_records = _LibraryRecords(logging.WARNING)
_processors: list[Any] = []
"""One list for good: a logger that was used keeps it, and is to do what was configured last."""


def configure_logging(log_format: str = "text", log_level: str = "info") -> None:
    """Write log records of `log_level` and above to standard error: `text` for people or `json` for programs.

    What libraries log passes through it too, from `warning` on, where they have no handler of their own.
    """
    logging.getLogger().addHandler(_library_records)  # once, however often it is called
    _processors[:] = [_complete, *_renderers(log_format)]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        # Each write is of whole lines, so that the lines of several workers do not mix.
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )


def log_all_output() -> None:
    """Write as log records what Python itself would print on standard error: warnings, and uncaught exceptions.

    For a process that serves: all that it writes has one form.
    """
    log = get_logger("telemetry.log")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.error("uncaught exception", exc_info=(kind, error, trace))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        error = args.exc_value
        thread = args.thread.name if args.thread is not None else None
        log.error("uncaught exception", thread=thread, exc_info=error)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        log.error("exception ignored", where=args.err_msg or "in a finalizer", exc_info=args.exc_value)

    def warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        log.warning("python warning", category=category.__name__, message=str(message), file=filename, line=lineno)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, uncaught_in_thread, unraisable
    warnings.showwarning = warn


def get_logger(name: str) -> Any:
    """Return a logger whose records carry `name` as `logger`: the module's path below `receiver`.

    The logger is created on first use: modules call this when they are imported, before the settings are read.
    """
    return structlog.get_logger(logger_name=name)


def _renderers(log_format: str) -> list[Any]:
    if log_format == "json":
        return [json_line]
    if not sys.stderr.isatty():
        return [text_line]
    plain = structlog.dev.plain_traceback  # the rich one shows the values of variables, including secrets
    return [clean, structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain)]


def _complete(_logger: Any, method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add what every record has: the logger's name, the id of the request, the level, and the time.

    The id is that of the request that is handled, unless the record has one of its own. An exception of a record at
    `error` is reported, where exceptions are, and becomes a traceback. All in one function, because it is called for
    each task that ends.
    """
    # structlog has its own argument `logger`, so the name arrives here as `logger_name`.
    record["logger"] = record.pop("logger_name", "")
    if "request_id" not in record and (request_id := current_request_id()) is not None:
        record["request_id"] = request_id
    structlog.processors.add_log_level(_logger, method, record)
    record["timestamp"] = wall_text()
    if "exc_info" in record:
        if method in _REPORTED and record["exc_info"]:
            report_exception(record)
        return structlog.processors.format_exc_info(_logger, method, record)
    return record
