"""What the service says of itself: structured logs, and counters for Prometheus."""

import logging
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_WORKER = "PROMETHEUS_MULTIPROC_WORKER"
if _WORKER in os.environ:
    _number = int(os.environ[_WORKER])
    # Files are named by the worker's number and not by its process id: a successor goes on where one that died was,
    # so that totals never fall and there are never more files than workers.
    values.ValueClass = values.MultiProcessValue(lambda: _number)  # type: ignore[no-untyped-call]

inbound_refused = Counter("ringback_inbound_refused_total", "Inbound webhooks refused for their secret", ["provider"])
inbound_received = Counter(
    "ringback_inbound_received_total",
    "Authentic inbound webhooks by what became of them",
    ["provider", "result"],
)
updates_applied = Counter("ringback_updates_total", "Updates by the way they came and what they did", ["source", "did"])
provider_calls = Counter("ringback_provider_calls_total", "Calls to a provider", ["provider", "call", "outcome"])
deliveries_settled = Counter("ringback_delivery_attempts_total", "Delivery attempts by their outcome", ["outcome"])
streams_open = Gauge("ringback_streams_open", "Readers of the live stream", multiprocess_mode="livesum")
writer_batch = Histogram(
    "ringback_writer_batch_size",
    "Writes that shared one commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
writer_waiting = Gauge("ringback_writer_waiting", "Writes that wait for their commit", multiprocess_mode="livesum")


@cache
def counted(counter: Counter, *labels: str) -> Counter:
    """Return the counter of what has these labels. Asked for once, where `labels` looks it up each time."""
    return counter.labels(*labels)


def shared_counters(folder: Path, worker: int) -> dict[str, str]:
    """Return the environment of a worker whose counters, kept in `folder`, add up with those of others.

    `worker` is a number that no other worker has while it lives.
    """
    return {_FOLDER: str(folder), _WORKER: str(worker)}


def forget_worker(folder: Path, worker: int) -> None:
    """Forget what was true only while a worker lived, such as how many streams it had; its counts stay."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """Return the counters in Prometheus' text form: of all workers together, where there are several."""
    if _FOLDER not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class _StandardError:
    """Whatever the standard error is at the moment: it may be replaced, and what was there before closed."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(log_format: str = "text", log_level: str = "info") -> None:
    """Write log records of `log_level` and above to standard error, as text for people or as JSON for programs."""
    plain = structlog.dev.plain_traceback  # the rich one shows the values of variables, secrets among them
    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    renderer: Any = structlog.processors.JSONRenderer() if log_format == "json" else for_people
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_logger,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        # One write a line, so that lines of several workers do not run into one another.
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )


def _add_logger(_logger: Any, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    # structlog has an argument `logger` of its own, so the name comes here under another one.
    record["logger"] = record.pop("logger_name", "")
    return record


def get_logger(name: str) -> Any:
    """Return a logger whose records carry `name` as `logger`: the module's path below `receiver`.

    It stays lazy: modules ask for theirs when they are imported, before the settings are read.
    """
    return structlog.get_logger(logger_name=name)
