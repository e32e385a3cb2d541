"""What the service says of itself: structured logs, and counters for Prometheus."""

import logging
import sys
from typing import Any, TextIO, cast

import structlog
from prometheus_client import Counter, Gauge, Histogram

inbound_refused = Counter("ringback_inbound_refused_total", "Inbound webhooks refused for their secret", ["provider"])
inbound_received = Counter(
    "ringback_inbound_received_total",
    "Authentic inbound webhooks by what became of them",
    ["provider", "result"],
)
updates_applied = Counter("ringback_updates_total", "Updates by the way they came and what they did", ["source", "did"])
provider_calls = Counter("ringback_provider_calls_total", "Calls to a provider", ["provider", "call", "outcome"])
deliveries_settled = Counter("ringback_delivery_attempts_total", "Delivery attempts by their outcome", ["outcome"])
streams_open = Gauge("ringback_streams_open", "Readers of the live stream")
writer_batch = Histogram(
    "ringback_writer_batch_size",
    "Writes that shared one commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
writer_waiting = Gauge("ringback_writer_waiting", "Writes that wait for their commit")


class _StandardError:
    """Whatever the standard error is at the moment: it may be replaced, and what was there before closed."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(log_format: str = "text") -> None:
    """Send log lines to standard error, as text for people or as JSON for programs."""
    plain = structlog.dev.plain_traceback  # the rich one shows the values of variables, secrets among them
    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    renderer: Any = structlog.processors.JSONRenderer() if log_format == "json" else for_people
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )


def get_logger(room: str) -> Any:
    """Return a logger whose lines carry the name of the room they come from.

    It stays lazy: rooms ask for theirs when they are imported, before the settings are read.
    """
    return structlog.get_logger(room=room)
