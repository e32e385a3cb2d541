"""How many webhooks came in since the service started, read from the counters of its metrics."""

from collections import defaultdict
from typing import Any

from prometheus_client import Metric

from receiver.telemetry.exposition import counters

_RECEIVED, _REFUSED, _UPDATES = "ringback_inbound_received", "ringback_inbound_refused", "ringback_updates"
_DONE = ("stored", "thin", "answered", "unknown task")
_RESULTS = (*_DONE, "malformed", "too large", "unknown encoding", "unavailable")
_WITHOUT_EVENT = {"nothing": "unchanged", "receipt": "receipts"}


def inbound_counts() -> dict[str, Any]:
    """Return `providers`, each with its webhooks by result, and `updates`, what those that were stored did.

    They are of all workers of this service, but not of its replicas, and begin with 0 when it starts. Reads files where
    there are several workers.
    """
    found = counters(_RECEIVED, _REFUSED, _UPDATES)
    providers: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys((*_RESULTS, "wrong secret"), 0))
    for labels, value in _values(found.get(_RECEIVED)):
        providers[labels["provider"]][labels["result"]] = value
    for labels, value in _values(found.get(_REFUSED)):
        providers[labels["provider"]]["wrong secret"] = value
    updates = {"applied": 0, "unchanged": 0, "receipts": 0}
    for labels, value in _values(found.get(_UPDATES)):
        if labels["source"] == "webhook":
            updates[_WITHOUT_EVENT.get(labels["did"], "applied")] += value
    named = [{"name": name, **_named(providers[name])} for name in sorted(providers)]
    return {"providers": named, "updates": updates}


def _values(metric: Metric | None) -> list[tuple[dict[str, str], int]]:
    samples = [] if metric is None else metric.samples
    return [(sample.labels, int(sample.value)) for sample in samples if sample.name.endswith("_total")]


def _named(results: dict[str, int]) -> dict[str, int]:
    return {name.replace(" ", "_"): value for name, value in results.items()}
