"""Metrics for Prometheus."""

import os
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

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
