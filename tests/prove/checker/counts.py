"""What a history holds, in numbers: the load, and what is no anomaly but has to be known."""

from collections import Counter, defaultdict

from tests.prove.checker import deliveries, purchases, truth
from tests.prove.checker.view import Call, View

LOAD = (
    "creates acknowledged",
    "tasks of bulks acknowledged",
    "runs acknowledged",
    "cancels acknowledged",
    "retries acknowledged",
    "webhooks registered",
    "tasks at the end",
    "provider tasks made",
    "provider webhooks acknowledged",
    "forged webhooks refused",
    "deliveries received",
    "stream events",
)
"""The counts of the load, in the order of the report."""
BESIDES = (
    "answers lost",
    "answers 503",
    "answers 504",
    "requests repeated with a key",
    "deliveries received again after they were acknowledged",
    "deliveries given up",
    "false failures",
    "false failures healed",
    "provider tasks that no row names",
    "bought again after the provider said that it made nothing",
)
"""What is no anomaly, and is not hidden either, in the order of the report."""
_CREATES = ("create", "bulk", "run")


def counts_of(view: View) -> dict[str, int]:
    """Return every count of `LOAD` and `BESIDES`."""
    return {**_load(view), **_besides(view)}


def faults_of(view: View) -> dict[str, tuple[int, int]]:
    """Return by fault how many times it was done, and how many of them hit."""
    done: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    for line in view.of("fault"):
        times = int(line.get("times") or 1) if line.get("hit", True) else 1
        done[line.what] += times
        hit[line.what] += times * bool(line.get("hit", True))
    return {name: (done[name], hit[name]) for name in sorted(done)}


def notes_of(view: View) -> tuple[str, ...]:
    """Return what was left out of a campaign, as sentences of the report without their ends."""
    notes = []
    if not view.reports:
        notes.append("`ringback report`, which the service does not have")
    if view.of("campaign", "slow"):
        notes.append("some of the load: it did not come as far as planned before the next fault")
    return tuple(notes)


def _load(view: View) -> dict[str, int]:
    acknowledged = [call for call in view.calls.values() if call.is_acknowledged]
    ids: dict[str, set[str]] = defaultdict(set)
    for call in acknowledged:
        ids[call.op].update(call.ids)
    ops = Counter(call.op for call in acknowledged)
    webhooks = view.of("provider", "webhook")
    return {
        "creates acknowledged": len(ids["create"]),
        "tasks of bulks acknowledged": len(ids["bulk"]),
        "runs acknowledged": len(ids["run"]),
        "cancels acknowledged": ops["run_cancel"] + ops["task_cancel"],
        "retries acknowledged": ops["run_retry"] + ops["task_retry"],
        "webhooks registered": len(ids["webhook"]),
        "tasks at the end": len(view.tasks),
        "provider tasks made": len(view.made),
        "provider webhooks acknowledged": sum(
            line.get("kind") in truth.TRUE_KINDS and deliveries.is_accepted(line) for line in webhooks
        ),
        "forged webhooks refused": sum(
            line.get("kind") == "forged" and line.get("answer") is not None and not deliveries.is_accepted(line)
            for line in webhooks
        ),
        "deliveries received": len(view.of("subscriber", "received")),
        "stream events": len(view.of("stream", "event")),
    }


def _besides(view: View) -> dict[str, int]:
    statuses = Counter(call.status for call in view.calls.values())
    return {
        "answers lost": sum(call.lost is not None for call in view.calls.values()),
        "answers 503": statuses[503],
        "answers 504": statuses[504],
        "requests repeated with a key": _repeated(list(view.calls.values())),
        "deliveries received again after they were acknowledged": deliveries.repeats(view),
        "deliveries given up": deliveries.deliveries_by_status(view).get("dead", 0),
        "false failures": len(truth.false_failures(view)),
        "false failures healed": len(truth.healed(view)),
        "provider tasks that no row names": len(purchases.unnamed_purchases(view)),
        "bought again after the provider said that it made nothing": purchases.refused_but_made(view),
    }


def _repeated(calls: list[Call]) -> int:
    keys = Counter((call.op, call.target, call.key) for call in calls if call.key is not None)
    return sum(count - 1 for count in keys.values())
