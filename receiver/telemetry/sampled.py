"""The metrics that are read at intervals, most of them from the database (`receiver.workers.sampler`).

One worker of a process group reads the database. The values of a worker that ended stay until another one reads them.
"""

from typing import Final

from prometheus_client import Counter, Gauge

from receiver.telemetry.exposition import WORKER

_DATABASE: Final = "mostrecent"
"""The mode of a value that one worker reads for all."""

build_info = Gauge(
    "ringback_build_info",
    "1, with the versions of Ringback, of Python and of the schema, and the kind of the database",
    ["version", "python", "database", "schema"],
    multiprocess_mode="livemax",
)
ready = Gauge(
    "ringback_ready",
    "1 if the database can be read and written and the service is not stopping, else 0; the least of all workers",
    multiprocess_mode="livemin",
)
sampled_at = Gauge(
    "ringback_sampled_timestamp_seconds",
    "When the gauges that come from the database were last read, as a Unix time",
    multiprocess_mode=_DATABASE,
)
tasks_due = Gauge(
    "ringback_tasks_due",
    "Tasks that are due, by what is to be done (send, poll), up to 10000 of each organization",
    ["action"],
    multiprocess_mode=_DATABASE,
)
tasks_overdue = Gauge(
    "ringback_tasks_overdue",
    "Tasks that have been due for over 60 s, by what is to be done, up to 10000 of each organization",
    ["action"],
    multiprocess_mode=_DATABASE,
)
tasks_oldest_due = Gauge(
    "ringback_tasks_oldest_due_seconds",
    "For how long the task that is due for longest has been due; 0 if none is",
    ["action"],
    multiprocess_mode=_DATABASE,
)
deliveries_due = Gauge(
    "ringback_deliveries_due",
    "Deliveries that are due and not in a process yet, up to 10000 of each webhook",
    multiprocess_mode=_DATABASE,
)
deliveries_overdue = Gauge(
    "ringback_deliveries_overdue",
    "Deliveries that have been due for over 60 s, up to 10000 of each webhook",
    multiprocess_mode=_DATABASE,
)
deliveries_oldest_due = Gauge(
    "ringback_deliveries_oldest_due_seconds",
    "For how long the delivery that is due for longest has been due; 0 if none is",
    multiprocess_mode=_DATABASE,
)
tasks_open = Gauge(
    "ringback_tasks_open",
    "Tasks that have not ended, by state, up to 10000 of each organization",
    ["status"],
    multiprocess_mode=_DATABASE,
)
runs_open = Gauge(
    "ringback_runs_open", "Runs that have not ended, up to 10000 of each organization", multiprocess_mode=_DATABASE
)
webhooks_disabled = Gauge(
    "ringback_webhooks_disabled",
    "Registered webhooks that Ringback has switched off, because they are gone or kept failing",
    multiprocess_mode=_DATABASE,
)
webhooks_failing = Gauge(
    "ringback_webhooks_failing",
    "Registered webhooks that are active and whose last attempts have all failed",
    multiprocess_mode=_DATABASE,
)
fan_outs_waiting = Gauge(
    "ringback_fan_outs_waiting",
    "Events whose deliveries to many webhooks are not all written yet, up to 10000",
    multiprocess_mode=_DATABASE,
)
database_bytes = Gauge(
    "ringback_database_size_bytes",
    "Size of the database: PostgreSQL's own figure, or SQLite's file with its WAL",
    multiprocess_mode=_DATABASE,
)
disk_free = Gauge(
    "ringback_disk_free_bytes",
    "Bytes that are free for this user on the disk of the SQLite file; 0 with PostgreSQL",
    multiprocess_mode=_DATABASE,
)
disk_size = Gauge(
    "ringback_disk_size_bytes",
    "Size of the disk of the SQLite file; 0 with PostgreSQL",
    multiprocess_mode=_DATABASE,
)
last_backup = Gauge(
    "ringback_last_backup_timestamp_seconds",
    "When `ringback backup` last made a backup, as a Unix time; 0 if it never did",
    multiprocess_mode=_DATABASE,
)
provider_paused = Gauge(
    "ringback_provider_paused_seconds",
    "For how long no call is made yet because the provider asked for a pause; 0 without one",
    ["provider"],
    multiprocess_mode="livemax",
)
worker_cpu = Counter(
    "ringback_worker_cpu_seconds_total", "Processor time of a worker, of user and system together", ["worker"]
).labels(WORKER)
worker_memory = Gauge(
    "ringback_worker_resident_memory_bytes",
    "Memory of a worker that is in RAM",
    ["worker"],
    multiprocess_mode="livesum",
).labels(WORKER)
worker_open_fds = Gauge(
    "ringback_worker_open_fds", "Open file descriptors of a worker", ["worker"], multiprocess_mode="livesum"
).labels(WORKER)
worker_max_fds = Gauge(
    "ringback_worker_max_fds", "File descriptors that a worker may have open", ["worker"], multiprocess_mode="livesum"
).labels(WORKER)
worker_start = Gauge(
    "ringback_worker_start_timestamp_seconds",
    "When a worker was started, as a Unix time",
    ["worker"],
    multiprocess_mode="livesum",
).labels(WORKER)
