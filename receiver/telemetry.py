"""Structured logs, and metrics for Prometheus."""

import logging
import os
import sys
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from receiver.printable import printable

_INDENT = "  "
"""Before each line of a traceback, so that none looks like a record."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_WORKER = "PROMETHEUS_MULTIPROC_WORKER"
if _WORKER in os.environ:
    _number = int(os.environ[_WORKER])
    # Files are named by the worker's number and not by its process id: the process that replaces a dead worker
    # continues its files, so that totals never fall and there are never more files than workers.
    values.ValueClass = values.MultiProcessValue(lambda: _number)  # type: ignore[no-untyped-call]

inbound_refused = Counter(
    "ringback_inbound_refused_total", "Inbound webhooks refused because their secret was missing or wrong", ["provider"]
)
wrong_keys = Counter(
    "ringback_wrong_keys_total",
    "Requests without a valid API key: it was missing, refused (401), or slowed (429)",
    ["reason"],
)
inbound_received = Counter(
    "ringback_inbound_received_total",
    "Inbound webhooks with a valid secret, by result",
    ["provider", "result"],
)
updates_applied = Counter(
    "ringback_updates_total", "Updates of tasks, by source (webhook, poll, submit) and by effect", ["source", "did"]
)
unknown_statuses = Counter(
    "ringback_unknown_statuses_total", "Updates whose status word is not known, by word", ["provider", "status"]
)
task_exceptions = Counter(
    "ringback_task_exceptions_total", "Exceptions while a task was submitted, polled or searched for", ["provider"]
)
provider_calls = Counter(
    "ringback_provider_calls_total", "Calls to providers, by call and outcome", ["provider", "call", "outcome"]
)
name_lookups = Counter(
    "ringback_name_lookups_total",
    "Look-ups of host names, by purpose (subscribers, provider) and result",
    ["purpose", "result"],
)
deliveries_settled = Counter("ringback_delivery_attempts_total", "Delivery attempts, by outcome", ["outcome"])
sent_without_lease = Counter(
    "ringback_sent_without_lease_total",
    "Sends of a delivery or a create call that went on after their lease had ended",
    ["what"],
)
clock_jumps = Counter(
    "ringback_clock_jumps_total",
    "Jumps by more than 2 s, by clock (wall, database) and direction (forward, back)",
    ["clock", "direction"],
)
streams_open = Gauge("ringback_streams_open", "Open connections to the event stream", multiprocess_mode="livesum")
open_writers_left = Counter(
    "ringback_open_writers_left_total", "Waits for transactions that write events that were given up after their bound"
)
sqlite_wal_bytes = Gauge("ringback_sqlite_wal_bytes", "Size of SQLite's WAL", multiprocess_mode="mostrecent")
writer_batch = Histogram(
    "ringback_writer_batch_size",
    "Writes in one commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
connections_refused = Counter(
    "ringback_connections_refused_total", "Connections that the server ended or did not take, by reason", ["reason"]
)
connections_open = Gauge("ringback_connections_open", "Open connections of clients", multiprocess_mode="livesum")
writes_set_apart = Counter(
    "ringback_writes_set_apart_total", "Times that a write met a lock of another session, and was put aside for a while"
)
organization_refusals = Counter(
    "ringback_organization_refusals_total", "Requests refused by a limit of their organization, by limit", ["limit"]
)
loop_lag = Histogram(
    "ringback_loop_lag_seconds",
    "How late the event loop called what was due, measured twenty times a second",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
loop_stalls = Counter("ringback_loop_stalls_total", "Times that the event loop was held for more than 200 ms")
writer_waiting = Gauge("ringback_writer_waiting", "Writes that wait for their commit", multiprocess_mode="livesum")

organizations_slowed = Gauge(
    "ringback_organizations_slowed",
    "Organizations that use more than an equal share of a process that is late, and are slowed",
    multiprocess_mode="livesum",
)


@cache
def counted(counter: Counter, *labels: str) -> Counter:
    """Return the counter with these label values. Cached: `labels` looks it up on every call."""
    return counter.labels(*labels)


def shared_counters(folder: Path, worker: int) -> dict[str, str]:
    """Return the environment variables for a worker process that shares its counters with others in `folder`.

    `worker` is a number that no other running worker has.
    """
    return {_FOLDER: str(folder), _WORKER: str(worker)}


def forget_worker(folder: Path, worker: int) -> None:
    """Remove the gauges of a worker that ended, such as its number of open streams; its counters stay."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


def exposition(folder: Path | None = None) -> bytes:
    """Return the metrics in Prometheus' text format: summed over all workers, where there are several.

    They share them in `folder`, which a worker knows by itself.
    """
    if folder is None and _FOLDER not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    path = None if folder is None else str(folder)
    MultiProcessCollector(registry, path=path)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


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
