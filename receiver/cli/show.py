"""Tasks as people read them, from either dialect: PiAPI's form and the native one."""

from collections.abc import Mapping, Sequence
from typing import Any

from receiver.cli.console import age, print_fields, print_table

ENDS = frozenset({"completed", "failed", "cancelled"})
_NEVER = "0001-01-01T00:00:00Z"


def print_task(task: Mapping[str, Any]) -> None:
    """Print one task, a field a line."""
    meta = task.get("meta") or {}
    print_fields(
        [
            ("task", task.get("task_id")),
            ("model", _kind(task)),
            ("status", task.get("status")),
            ("progress", f"{percent_of(task)} %" if percent_of(task) else None),
            ("attempt", task.get("attempt", meta.get("attempt"))),
            ("provider's id", task.get("provider_task_id", meta.get("provider_task_id"))),
            ("created", _moment(task, "created_at")),
            ("ended", _moment(task, "ended_at")),
            ("metadata", task.get("metadata")),
            ("error", error_message(task)),
            ("result", result_url(task)),
            ("output", task.get("output")),
        ]
    )


def print_tasks(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Print tasks as a table."""
    rows = [
        (
            task.get("task_id"),
            _kind(task),
            task.get("status"),
            f"{percent_of(task)} %",
            age(_moment(task, "created_at")),
            result_url(task) or error_message(task),
        )
        for task in tasks
    ]
    print_table(("id", "model/type", "status", "progress", "age", "result"), rows)


def result_url(task: Mapping[str, Any]) -> str | None:
    """Return the one URL that a finished task is about, or None."""
    output = task.get("output")
    if not isinstance(output, dict):
        return None
    images = output.get("image_urls") or [None]
    candidates = (output.get("video_url"), output.get("image_url"), output.get("audio_url"), images[0])
    return next((str(url) for url in candidates if url), None)


def percent_of(task: Mapping[str, Any]) -> int:
    """Return how far a task is: the native form has `progress`, PiAPI's what the model's output says."""
    output = task.get("output")
    said = output if isinstance(output, dict) else {}
    found = task.get("progress") or said.get("progress") or said.get("percent") or said.get("task_progress")
    return int(found) if isinstance(found, int | float) else 0


def error_message(task: Mapping[str, Any]) -> str | None:
    """Return what went wrong with a task, or None."""
    error = task.get("error") or {}
    return str(error["message"]) if error.get("message") else None


def _kind(task: Mapping[str, Any]) -> str:
    return f"{task.get('model')}/{task.get('task_type')}"


def _moment(task: Mapping[str, Any], name: str) -> str | None:
    moment = task.get(name) or (task.get("meta") or {}).get(name)
    return None if moment == _NEVER else moment
