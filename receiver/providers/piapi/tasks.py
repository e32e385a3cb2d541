"""Turns a PiAPI task, in either envelope, from a webhook or a response, into an update."""

from typing import Any

from models import TaskStatus
from receiver.domain.outputs import has_output, normalise_output
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers.base import MalformedUpdate
from receiver.providers.piapi import fields

LONGEST_ID = 200


def read_task(body: Any, *, source: Source, attempt: int | None = None) -> ProviderUpdate:
    """Turn a body that `read_body` returned into an update.

    Takes `{"timestamp", "data": {task}}`, `{"code", "data": {task}}` and the bare task. Raises `MalformedUpdate`.
    """
    task = find_task(body)
    task_id = _read_id(task)
    status, word = _read_status(task)
    error = fields.read_error(task.get("error"), failed=status == TaskStatus.FAILED)
    output = normalise_output(task.get("output"), task.get("works")) or None
    if status == TaskStatus.COMPLETED and error is not None and not has_output(output):
        # An error without output is a failure, whatever the status word.
        # Source: `receiver/providers/piapi/CONTRACT.md`, "Status".
        status = TaskStatus.FAILED
    meta = fields.read_meta(task)
    times = meta or {}
    logs, config = task.get("logs"), task.get("config")
    return ProviderUpdate(
        source=source,
        status=status,
        word=word,
        provider_task_id=task_id,
        attempt=attempt,
        model=fields.read_name(task.get("model")),
        task_type=fields.read_name(task.get("task_type")),
        input=fields.read_input(task.get("input")),
        progress=fields.read_progress(task),
        output=output,
        error=error,
        logs=logs if isinstance(logs, list) else None,
        detail=task.get("detail"),
        meta=meta,
        config=config if isinstance(config, dict) else None,
        created_at=fields.read_time(times.get("created_at")),
        started_at=fields.read_time(times.get("started_at")),
        ended_at=fields.read_time(times.get("ended_at")),
    )


def find_task(body: Any) -> dict[str, Any]:
    """Return the task in the body of a webhook or a response. Raises `MalformedUpdate` if it has none."""
    if not isinstance(body, dict):
        raise MalformedUpdate("the body is not a JSON object")
    data = body.get("data")
    if isinstance(data, dict) and not ("task_id" in body and "task_id" not in data):
        return data
    if "task_id" not in body:
        raise MalformedUpdate("the body has no task: task_id is missing")
    return body


def _read_id(task: dict[str, Any]) -> str:
    task_id = task.get("task_id")
    if not isinstance(task_id, str) or not task_id:
        raise MalformedUpdate("task_id must be a text that is not empty")
    if len(task_id) > LONGEST_ID:
        raise MalformedUpdate(f"task_id may have at most {LONGEST_ID} characters")
    return task_id


def _read_status(task: dict[str, Any]) -> tuple[TaskStatus | None, str]:
    word = task.get("status")
    if word is None:
        word = ""
    if not isinstance(word, str):
        raise MalformedUpdate("status must be a text")
    return fields.read_status(word)
