"""How tasks, runs and replays are printed for people."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from receiver.cli.console import age, echo, print_fields, print_table
from receiver.domain.outputs import main_url

ApiObject = dict[str, Any]
"""A task, run or replay as the API returns it."""

ENDS = frozenset({"completed", "failed", "cancelled"})
"""The terminal states of tasks and runs. Stated here, because importing `models` would slow every command down."""
TASK_COLUMNS = ("id", "model/type", "status", "progress", "age", "result")
STEP_COLUMNS = ("step", "action", "provider", "status", "took", "task", "result")
_NEVER = "0001-01-01T00:00:00Z"
"""PiAPI's form of a time that has not come."""


def print_task(task: Mapping[str, Any]) -> None:
    """Print a task, one field a line: from the native form, or PiAPI's, which has some fields in `meta`."""
    meta = task.get("meta") or {}
    percent = percent_of(task)
    print_fields(
        [
            ("task", task.get("task_id")),
            ("model", _model_and_type(task)),
            ("provider", task.get("provider", meta.get("provider"))),
            ("account", task.get("account")),
            ("status", task.get("status")),
            ("progress", f"{percent} %" if percent else None),
            ("attempt", task.get("attempt", meta.get("attempt"))),
            ("provider's id", task.get("provider_task_id", meta.get("provider_task_id"))),
            ("created", _time_of(task, "created_at")),
            ("ended", _time_of(task, "ended_at")),
            ("metadata", task.get("metadata")),
            ("error", error_message(task)),
            ("result", result_url(task)),
            ("output", task.get("output")),
        ]
    )


def print_tasks(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Print tasks as a table."""
    print_table(TASK_COLUMNS, map(task_cells, tasks))


def task_cells(task: Mapping[str, Any]) -> Sequence[Any]:
    """Return a task's cells for `TASK_COLUMNS`."""
    return (
        task.get("task_id"),
        _model_and_type(task),
        task.get("status"),
        f"{percent_of(task)} %",
        age(_time_of(task, "created_at")),
        result_url(task) or error_message(task),
    )


def print_run(run: Mapping[str, Any]) -> None:
    """Print a run, one field a line, then its steps as a table."""
    print_fields(
        [
            ("run", run.get("id")),
            ("status", run.get("status")),
            ("created", _iso(run.get("created_at"))),
            ("updated", _iso(run.get("updated_at"))),
            ("metadata", run.get("metadata")),
        ]
    )
    steps = run.get("steps") or []
    if steps:
        echo()
        print_table(STEP_COLUMNS, map(step_row, steps))


def step_row(step: Mapping[str, Any]) -> Sequence[Any]:
    """Return a step's cells for `STEP_COLUMNS`."""
    error, result = step.get("error") or {}, step.get("result") or {}
    outcome = error.get("message") or error.get("code") or result.get("result_url")
    return (
        step["id"],
        step["action"],
        step.get("provider"),
        step["status"],
        _duration_of(step),
        step["job_id"],
        outcome,
    )


def print_replay(replay: Mapping[str, Any]) -> None:
    """Print a replay, one field a line."""
    print_fields(
        [
            ("replay", replay.get("id")),
            ("kind", replay.get("kind")),
            ("status", replay.get("status")),
            ("since", replay.get("since")),
            ("until", replay.get("until")),
            ("events", " ".join(replay.get("event_types") or ())),
            ("deliveries", replay.get("deliveries")),
            ("sent", replay.get("sent")),
            ("delivered", replay.get("delivered")),
            ("pending", replay.get("pending")),
            ("given up", replay.get("dead")),
            ("cancelled", replay.get("cancelled")),
            ("age", age(replay.get("created_at"))),
        ]
    )


def print_explanation(explanation: Mapping[str, Any]) -> None:
    """Print why something is in its state, one field a line, then what its next act waits for."""
    following = explanation.get("next") or {}
    names = ("task_id", "run_id", "delivery_id")
    print_fields(
        [
            *((name.removesuffix("_id"), explanation.get(name)) for name in names),
            ("status", explanation.get("status")),
            ("why", explanation.get("reason")),
            ("next", following.get("action")),
            ("at", following.get("at")),
            ("that is", following.get("text")),
            ("you may", " ".join(explanation.get("may") or ())),
        ]
    )
    blocked_by = explanation.get("blocked_by") or []
    if blocked_by:
        echo()
        print_table(("waits for", "that is"), [(each.get("code"), each.get("text")) for each in blocked_by])


def result_url(task: Mapping[str, Any]) -> str | None:
    """Return the URL of a task's main result, or None."""
    output = task.get("output")
    return main_url(output) if isinstance(output, dict) else None


def percent_of(task: Mapping[str, Any]) -> int:
    """Return a task's progress in percent: the native form has `progress`, PiAPI's has it in the model's output."""
    output = task.get("output")
    fields = output if isinstance(output, dict) else {}
    found = task.get("progress") or fields.get("progress") or fields.get("percent") or fields.get("task_progress")
    return int(found) if isinstance(found, int | float) else 0


def error_message(task: Mapping[str, Any]) -> str | None:
    """Return the message of a task's error, or None."""
    error = task.get("error") or {}
    return str(error["message"]) if error.get("message") else None


def _model_and_type(task: Mapping[str, Any]) -> str:
    return f"{task.get('model')}/{task.get('task_type')}"


def _time_of(task: Mapping[str, Any], name: str) -> str | None:
    moment = task.get(name) or (task.get("meta") or {}).get(name)
    return None if moment == _NEVER else moment


def _duration_of(step: Mapping[str, Any]) -> str | None:
    started, ended = step.get("started_at"), step.get("completed_at")
    if started is None:
        return None
    return f"{max(0, int((ended or datetime.now(UTC).timestamp()) - started))} s"


def _iso(unix_seconds: int | None) -> str | None:
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat().replace("+00:00", "Z")
