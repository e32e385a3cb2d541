"""Whether anything was lost, doubled or forged: what everybody says at the end, compared. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from receiver.cli.show import ENDS

ENDING_EVENTS = {"task.completed": "completed", "task.failed": "failed", "task.cancelled": "cancelled"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What there is to compare."""

    wanted: int
    ids: Mapping[int, str]
    """The ids that the client was given, by number."""
    own_callbacks: frozenset[int]
    """The numbers of the tasks with a callback of their own."""
    tasks: Sequence[Mapping[str, Any]]
    """What the service says that there is."""
    events: Mapping[str, Sequence[Mapping[str, Any]]]
    """Each task's events."""
    book: Mapping[str, Any]
    """What the subscriber heard."""
    sandbox: Mapping[str, Any]
    """What the provider did."""


@dataclass(kw_only=True)
class CheckResult:
    """What came of it. `faults` says what was lost or doubled, a sentence each; none is the aim."""

    wanted: int
    by_status: dict[str, int]
    ended_by: dict[str, int]
    """How many ends came by `webhook`, by `poll` or with the create's answer (`submit`)."""
    sent_again: int
    """Tasks that the provider made more than once for us."""
    untold: int
    """Ends that the subscriber was not told of."""
    unknown: int
    """Tasks that failed because nobody can say whether the provider has them. It must not have them."""
    p50: float | None
    p99: float | None
    """Seconds from the end of a task to the subscriber's hearing of it."""
    faults: list[str] = field(default_factory=list)


def judge(facts: Facts) -> CheckResult:
    """Compare what everybody says."""
    ends = {task_id: _ending(events) for task_id, events in facts.events.items()}
    endings = [event for events in ends.values() for event in events]
    told = {event_id: each for event_id, each in facts.book["told"].items() if each["accepted"]}
    doubled = [endpoint for endpoint, count in facts.sandbox["by_endpoint"].items() if count > 1]
    untold = [event for event in endings if event["id"] not in told]
    seconds = sorted(told[event["id"]]["seconds"] for event in endings if event["id"] in told)
    return CheckResult(
        wanted=facts.wanted,
        by_status=dict(Counter(task["status"] for task in facts.tasks)),
        ended_by=dict(Counter(str((event.get("data") or {}).get("source")) for event in endings)),
        sent_again=len(doubled),
        untold=len(untold),
        unknown=len(_unknown(facts)),
        p50=_percentile(seconds, 0.50),
        p99=_percentile(seconds, 0.99),
        faults=[
            *_faults_of_tasks(facts),
            *_faults_of_ends(facts, ends),
            *[f"the provider made a task more than once for {endpoint}" for endpoint in doubled],
            *[f"the subscriber was not told of {event['type']} of task {event['task_id']}" for event in untold],
            *[f"task {task_id} was given up, and the provider has it" for task_id in _unknown(facts) & _made(facts)],
            *_faults_of_telling(facts),
        ],
    )


def _faults_of_tasks(facts: Facts) -> list[str]:
    faults = []
    there = {task["task_id"]: task for task in facts.tasks}
    numbers = Counter(str((task.get("metadata") or {}).get("demo")) for task in facts.tasks)
    for number in range(facts.wanted):
        task_id = facts.ids.get(number)
        if task_id is None:
            faults.append(f"the create of task number {number} was never answered")
        elif task_id not in there:
            faults.append(f"task {task_id} was answered with 200 and is not there")
        elif there[task_id]["status"] not in ENDS:
            faults.append(f"task {task_id} has not ended: it is {there[task_id]['status']}")
        if numbers[str(number)] > 1:
            faults.append(f"task number {number} is there {numbers[str(number)]} times")
    if len(facts.tasks) != facts.wanted:
        faults.append(f"{len(facts.tasks)} tasks are there, {facts.wanted} were asked for")
    return faults


def _faults_of_ends(facts: Facts, ends: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    faults = []
    for task in facts.tasks:
        types = [event["type"] for event in ends.get(task["task_id"], ())]
        if task["status"] in ENDS and [ENDING_EVENTS[kind] for kind in types] != [task["status"]]:
            faults.append(f"task {task['task_id']} is {task['status']}, and its ending events are {types}")
    return faults


def _faults_of_telling(facts: Facts) -> list[str]:
    faults = []
    if facts.book["counts"]["forged"]:
        faults.append(f"{facts.book['counts']['forged']} notices had no good signature")
    status = {task["task_id"]: task["status"] for task in facts.tasks}
    for number in sorted(facts.own_callbacks):
        task_id = facts.ids.get(number, "")
        said = facts.book["callbacks"].get(task_id)
        if task_id in status and said != status[task_id]:
            faults.append(f"the callback of task {task_id} was told that it is {said}; it is {status[task_id]}")
    return faults


def _unknown(facts: Facts) -> set[str]:
    """Return the tasks whose create call had no answer, and of which nothing was heard since."""
    return {task["task_id"] for task in facts.tasks if (task.get("error") or {}).get("code") == "submission_unknown"}


def _made(facts: Facts) -> set[str]:
    """Return the tasks that the provider made, by the address that it was given."""
    return {urlsplit(endpoint).path.rpartition("/")[2] for endpoint in facts.sandbox["by_endpoint"]}


def _ending(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event["type"] in ENDING_EVENTS]


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest rank; None of nothing."""
    return ordered[ceil(share * len(ordered)) - 1] if ordered else None
