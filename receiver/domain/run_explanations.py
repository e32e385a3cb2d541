"""Why a run is in its state, and what happens to it next: what happens to the tasks of its steps. Pure functions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from models import RUN_TERMINAL, RunStatus, StepStatus
from receiver.domain.advance import UNDER_WAY
from receiver.domain.explanations import Act, Blocker, Explanation, NextAct, earliest, native_next, words_of
from receiver.domain.representations import Fields

Tasks = Mapping[str, Explanation]
"""The explanations of the tasks of steps, by their ids."""


def explain_run(run: Fields, steps: Sequence[Fields], tasks: Tasks, now: datetime) -> Explanation:
    """Return why a run is in its state; `steps` are its rows in order, `tasks` has those of the steps under way."""
    under_way = [step for step in steps if step["status"] in UNDER_WAY]
    acts = {step["name"]: _act_of(step, tasks) for step in under_way}
    is_over = run["status"] in RUN_TERMINAL
    first = earliest(list(acts.values()))
    if first is None:
        text = "nothing: it has ended" if is_over else "the steps that are ready begin, or it ends"
        first = NextAct(Act.NONE, None, text) if is_over else NextAct(Act.ADVANCE, now, text)
    return Explanation(
        status=run["status"],
        reason=_reason(run, steps, under_way),
        next=first,
        blocked_by=[*_under_way(under_way, tasks), *([] if is_over else _waiting(steps))],
        may=_may(run["status"]),
        facts={
            "steps": [_step(step, steps, acts) for step in steps],
            "created_at": run["created_at"],
            "updated_at": run["updated_at"],
            "ended_at": run["ended_at"],
        },
    )


def _act_of(step: Fields, tasks: Tasks) -> NextAct:
    task = tasks.get(step["task_uid"])
    if task is None:  # it has ended since the step was read, or is purged
        return NextAct(Act.ADVANCE, None, f"step {step['name']!r}: the end of its task is written")
    return NextAct(task.next.act, task.next.at, f"step {step['name']!r}: {task.next.text}")


def _reason(run: Fields, steps: Sequence[Fields], under_way: Sequence[Fields]) -> str:
    count = {status: sum(step["status"] == status for step in steps) for status in StepStatus}
    match run["status"]:
        case RunStatus.COMPLETED:
            return f"all of its {len(steps)} steps completed"
        case RunStatus.FAILED:
            return "; ".join(_failures(steps)) or "a step failed"
        case RunStatus.CANCELLED if under_way:
            return f"it was cancelled, and the tasks of {len(under_way)} steps have not ended at the provider"
        case RunStatus.CANCELLED:
            return "it was cancelled"
        case _:
            done, waiting = count[StepStatus.COMPLETED], count[StepStatus.PENDING]
            return (
                f"{done} of its {len(steps)} steps completed, {len(under_way)} are under way, {waiting} wait for others"
            )


def _failures(steps: Sequence[Fields]) -> list[str]:
    failed = [step for step in steps if step["status"] in (StepStatus.FAILED, StepStatus.CANCELLED)]
    return [f"step {step['name']!r} {step['status']} ({words_of(step['error'])})" for step in failed]


def _under_way(under_way: Sequence[Fields], tasks: Tasks) -> list[Blocker]:
    found = []
    for step in under_way:
        task = tasks.get(step["task_uid"])
        text = f"step {step['name']!r} has not ended" + (f": {task.reason}" if task is not None else "")
        found.append(Blocker("step_under_way", text, {"step": step["name"], "task_id": step["task_uid"]}))
    return found


def _waiting(steps: Sequence[Fields]) -> list[Blocker]:
    found = []
    for step in steps:
        if step["status"] == StepStatus.PENDING and (others := _waits_for(step, steps)):
            text = f"step {step['name']!r} waits for {', '.join(map(repr, others))}"
            found.append(Blocker("step_waits", text, {"step": step["name"], "waits_for": others}))
    return found


def _waits_for(step: Fields, steps: Sequence[Fields]) -> list[str]:
    """Return the steps that a pending step depends on and that have not completed."""
    needed = set(step["spec"]["step"]["depends_on"])
    return [each["name"] for each in steps if each["name"] in needed and each["status"] != StepStatus.COMPLETED]


def _step(step: Fields, steps: Sequence[Fields], acts: Mapping[str, NextAct]) -> dict[str, Any]:
    act = acts.get(step["name"])
    return {
        "step": step["name"],
        "status": step["status"],
        "task_id": step["task_uid"],
        "waits_for": _waits_for(step, steps) if step["status"] == StepStatus.PENDING else [],
        "next": None if act is None else native_next(act),
    }


def _may(status: str) -> list[str]:
    if status in RUN_TERMINAL:
        return [] if status == RunStatus.COMPLETED else ["retry"]
    return ["cancel"]
