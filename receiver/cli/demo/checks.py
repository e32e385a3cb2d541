"""The checks at the end of the demo: compares what client, service, provider and subscriber know. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from receiver.cli.demo.subscriber_log import SubscriberLog
from receiver.cli.demo.workload import Workload
from receiver.cli.show import ENDS

JsonObject = Mapping[str, Any]


class Observations(Struct, frozen=True, kw_only=True):
    """What there is to compare."""

    workload: Workload
    task_ids: Mapping[int, str]
    """The ids that the client received, by task number."""
    tasks: Sequence[JsonObject]
    """The tasks that the service has."""
    endings: Sequence[JsonObject]
    """The service's events that ended a task."""
    subscriber: SubscriberLog
    creates_by_endpoint: Mapping[str, int]
    """How many tasks the provider made, by webhook address. An address contains the task's id."""


class CheckResult(Struct, frozen=True, kw_only=True):
    """The result of all checks. `faults` is empty if nothing was lost, made twice or forged."""

    by_status: dict[str, int]
    ended_by: dict[str, int]
    """How many ends were reported by `webhook`, by `poll`, or in the answer to the create (`submit`)."""
    made_twice: int
    """Tasks that the provider made more than once."""
    not_notified: int
    """Ends that the subscriber did not accept a notification of."""
    unknown: int
    """Tasks that failed with `submission_unknown`. It is a fault if the provider has one of them."""
    p50: float | None
    p99: float | None
    """Seconds from the end of a task to the subscriber's notification."""
    faults: list[str]
    """A sentence for each fault."""


def check(seen: Observations) -> CheckResult:
    """Run all checks."""
    accepted = {event_id: event for event_id, event in seen.subscriber.events.items() if event.accepted}
    missed = [event for event in seen.endings if event["id"] not in accepted]
    seconds = sorted(accepted[event["id"]].seconds for event in seen.endings if event["id"] in accepted)
    made_twice = [endpoint for endpoint, count in seen.creates_by_endpoint.items() if count > 1]
    unknown = {task["task_id"] for task in seen.tasks if (task.get("error") or {}).get("code") == "submission_unknown"}
    made = {urlsplit(endpoint).path.rpartition("/")[2] for endpoint in seen.creates_by_endpoint}
    return CheckResult(
        by_status=dict(Counter(task["status"] for task in seen.tasks)),
        ended_by=dict(Counter(str(event.get("source")) for event in seen.endings)),
        made_twice=len(made_twice),
        not_notified=len(missed),
        unknown=len(unknown),
        p50=_percentile(seconds, 0.50),
        p99=_percentile(seconds, 0.99),
        faults=[
            *_task_faults(seen),
            *_event_faults(seen),
            *(f"the provider made more than one task for {endpoint}" for endpoint in made_twice),
            *(f"the subscriber did not receive {event['type']} of task {event['task_id']}" for event in missed),
            *(f"task {task_id} failed with submission_unknown, but the provider has it" for task_id in unknown & made),
            *_callback_faults(seen),
        ],
    )


def _task_faults(seen: Observations) -> list[str]:
    faults = []
    by_id = {task["task_id"]: task for task in seen.tasks}
    by_number = Counter(str((task.get("metadata") or {}).get("demo")) for task in seen.tasks)
    for number in range(len(seen.workload.bodies)):
        task_id = seen.task_ids.get(number)
        if task_id is None:
            faults.append(f"the create of task number {number} was not answered")
        elif task_id not in by_id:
            faults.append(f"the create of task {task_id} was answered with 200, but the task does not exist")
        elif by_id[task_id]["status"] not in ENDS:
            faults.append(f"task {task_id} has not ended: it is {by_id[task_id]['status']}")
        if by_number[str(number)] > 1:
            faults.append(f"task number {number} exists {by_number[str(number)]} times")
    if len(seen.tasks) != len(seen.workload.bodies):
        faults.append(f"{len(seen.tasks)} tasks exist, but {len(seen.workload.bodies)} were created")
    return faults


def _event_faults(seen: Observations) -> list[str]:
    """Each task has exactly one event that ended it, of the type of its status."""
    types = defaultdict(list)
    for event in seen.endings:
        types[event["task_id"]].append(event["type"])
    return [
        f"task {task['task_id']} is {task['status']}, but its ending events are {types[task['task_id']]}"
        for task in seen.tasks
        if task["status"] in ENDS and types[task["task_id"]] != [f"task.{task['status']}"]
    ]


def _callback_faults(seen: Observations) -> list[str]:
    faults = []
    if forged := seen.subscriber.counts["forged"]:
        faults.append(f"{forged} notifications had an invalid signature")
    status = {task["task_id"]: task["status"] for task in seen.tasks}
    for number in seen.workload.callbacks:
        task_id = seen.task_ids.get(number, "")
        received = seen.subscriber.callbacks.get(task_id)
        if task_id in status and received != status[task_id]:
            faults.append(f"the callback of task {task_id} received {received}, but the task is {status[task_id]}")
    return faults


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value of the nearest rank, or None if there are no values."""
    return ordered[ceil(share * len(ordered)) - 1] if ordered else None
