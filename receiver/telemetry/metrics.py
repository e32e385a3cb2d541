"""The metrics that the service counts and times as it works. Those read at intervals are in `telemetry.sampled`.

Names follow Prometheus' rules: base units, `_total` for what only grows. Each value of a label is one of few: no id,
path or address of a client is one. `deploy/guides/monitoring.md` lists all of them.
"""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from receiver.telemetry.exposition import WORKER

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
tasks_ended = Counter(
    "ringback_tasks_ended_total",
    "Ends of tasks, by state and by what brought them (webhook, poll, submit; ringback: its own decision)",
    ["provider", "status", "source"],
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
provider_seconds = Histogram(
    "ringback_provider_call_duration_seconds",
    "How long a call to a provider took, with its wait for the rate limit, by call and outcome",
    ["provider", "call", "outcome"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100),
)
provider_wait = Histogram(
    "ringback_provider_wait_seconds",
    "How long a call waited for the provider's rate limit, also one that was not made for it",
    ["provider"],
    buckets=(0.005, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
provider_turns = Counter(
    "ringback_provider_turns_total", "Calls that the provider's rate limit has let through", ["provider"]
)
provider_limit = Gauge(
    "ringback_provider_limit_calls_per_second",
    "The most calls a second that the rate limit lets through (RINGBACK_PROVIDER_RATE), for all replicas together",
    ["provider"],
    multiprocess_mode="max",
)
provider_pauses = Counter(
    "ringback_provider_pauses_total", "Pauses that the provider asked for (429, or 503 with Retry-After)", ["provider"]
)
name_lookups = Counter(
    "ringback_name_lookups_total",
    "Look-ups of host names, by purpose (subscribers, provider) and result",
    ["purpose", "result"],
)
delivery_attempts = Counter(
    "ringback_delivery_attempts_total",
    "Delivery attempts, by outcome (delivered; failed, to be tried again; dead, given up; lease lost)",
    ["outcome"],
)
delivery_seconds = Histogram(
    "ringback_delivery_attempt_duration_seconds",
    "How long a delivery attempt took, from the look-up of the name to the end of the response, by outcome",
    ["outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60),
)
told_seconds = Histogram(
    "ringback_webhook_to_told_seconds",
    "From a provider's webhook, accepted, to the first subscriber or stream of this process that has its event",
    ["by"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
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
long_polls_waiting = Gauge(
    "ringback_long_polls_waiting", "Long polls that wait for a task or run to change", multiprocess_mode="livesum"
)
open_writers_left = Counter(
    "ringback_open_writers_left_total", "Waits for transactions that write events that were given up after their bound"
)
sqlite_wal_bytes = Gauge("ringback_sqlite_wal_bytes", "Size of SQLite's WAL", multiprocess_mode="mostrecent")
writer_batch = Histogram(
    "ringback_writer_batch_size",
    "Writes in one commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
commit_seconds = Histogram(
    "ringback_commit_duration_seconds",
    "How long the COMMIT of a transaction took, until its writes were on disk",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
writes_not_stored = Counter(
    "ringback_writes_not_stored_total",
    "Writes that were not stored, by reason (queue full, disk full, database, locked; unknown: not known at once)",
    ["reason"],
)
optimistic_batches = Counter(
    "ringback_optimistic_batches_total",
    "Batches that one statement may store, by outcome (stored; or with locks: needs more, changed, conflict, resting)",
    ["outcome"],
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
    "How late the event loop of a worker called what was due, measured twenty times a second",
    ["worker"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
).labels(WORKER)
loop_stalls = Counter("ringback_loop_stalls_total", "Times that the event loop was held for more than 200 ms")
writer_waiting = Gauge("ringback_writer_waiting", "Writes that wait for their commit", multiprocess_mode="livesum")
http_seconds = Histogram(
    "ringback_http_request_duration_seconds",
    "From a request's head to that of its answer, by route, method and class of the status; none where the client left",
    ["route", "method", "status"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
exceptions = Counter(
    "ringback_exceptions_total",
    "Exceptions that nothing expected, each with its traceback in the log, by place (request, inbound, write, loop)",
    ["place"],
)
last_purge = Gauge(
    "ringback_last_purge_timestamp_seconds",
    "When old rows were last looked for and purged, as a Unix time; 0 if not since the start",
    multiprocess_mode="max",
)
purged_rows = Counter("ringback_purged_rows_total", "Rows that were purged because they are old, by kind", ["kind"])

organizations_slowed = Gauge(
    "ringback_organizations_slowed",
    "Organizations that use more than an equal share of a process that is late, and are slowed",
    multiprocess_mode="livesum",
)


@cache
def counted(counter: Counter, *labels: str) -> Counter:
    """Return the counter with these label values. Cached: `labels` looks it up on every call."""
    return counter.labels(*labels)


@cache
def timed(histogram: Histogram, *labels: str) -> Histogram:
    """Do the same for a histogram."""
    return histogram.labels(*labels)


def begin_provider(name: str) -> None:
    """Begin the counters of a provider at 0. Prometheus takes no notice of a rise to 1 from nothing at all."""
    counted(inbound_refused, name)
    for call in ("submit", "fetch", "cancel", "history", "forward"):
        counted(provider_calls, name, call, "unauthorized")


def _begin() -> None:
    """Do the same for what is not of a provider, and which no alert may miss."""
    for outcome in ("delivered", "failed", "dead", "lease lost"):
        counted(delivery_attempts, outcome)
    for reason in ("queue full", "disk full", "database", "locked", "unknown"):
        counted(writes_not_stored, reason)
    for outcome in ("stored", "needs more", "changed", "conflict", "resting"):
        counted(optimistic_batches, outcome)
    for place in ("request", "inbound", "write", "loop"):
        counted(exceptions, place)
    for clock in ("wall", "database"):
        for direction in ("forward", "back"):
            counted(clock_jumps, clock, direction)


_begin()
