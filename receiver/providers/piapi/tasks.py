"""Turns a PiAPI task, in either envelope, from a webhook or a response, into an update."""

from typing import Any

from models import TaskStatus
from receiver.domain.outputs import has_output, normalise_output
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import fields
from receiver.providers.base import MalformedUpdate

LONGEST_ID = 200


def read_task(body: Any, *, source: Source, attempt: int | None = None) -> ProviderUpdate:
    """Turn a body that `read_body` returned into an update.

    Takes `{"timestamp", "data": {task}}`, `{"code", "data": {task}}` and the bare task. Raises `MalformedUpdate`.
    """
    task = find_task(body, is_created=source == Source.SUBMIT)
    task_id = _read_id(task, is_created=source == Source.SUBMIT)
    status, word = fields.read_task_status(task)
    output = normalise_output(fields.read_output(task.get("output")), fields.read_beside(task)) or None
    error = fields.read_error(task, status)
    if status == TaskStatus.COMPLETED and error is not None and not has_output(output):
        # An error without output is a failure, whatever the status word.
        # Source: `receiver/providers/piapi/CONTRACT.md`, "Status".
        status = TaskStatus.FAILED
        error = fields.read_error(task, status)
    meta = fields.read_meta(task)
    times = meta or {}
    logs = task.get("logs")
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
        config=fields.read_config(task.get("config")),
        created_at=fields.read_time(times.get("created_at")),
        started_at=fields.read_time(times.get("started_at")),
        ended_at=fields.read_time(times.get("ended_at")),
    )


def find_task(body: Any, *, is_created: bool = False) -> dict[str, Any]:
    """Return the task in the body of a webhook or a response. Raises `MalformedUpdate` if it has none.

    `is_created` is for the answer to a create call, whose task may have its id under another name.
    """
    if not isinstance(body, dict):
        raise MalformedUpdate("the body is not a JSON object")
    data = body.get("data")
    if isinstance(data, dict) and not ("task_id" in body and "task_id" not in data):
        return data
    if "task_id" not in body and not (is_created and _created_id(body)):
        raise MalformedUpdate("the body has no task: task_id is missing")
    return body


def has_task(body: Any, *, is_created: bool = False) -> bool:
    """Return whether a body has a task with an id."""
    try:
        task = find_task(body, is_created=is_created)
    except MalformedUpdate:
        return False
    return bool(fields.read_task_id(task.get("task_id")) or (is_created and _created_id(task)))


def _read_id(task: dict[str, Any], *, is_created: bool) -> str:
    task_id = fields.read_task_id(task.get("task_id")) or (_created_id(task) if is_created else "")
    if not task_id:
        raise MalformedUpdate("task_id must be a text that is not empty, or a whole number")
    if len(task_id) > LONGEST_ID:
        raise MalformedUpdate(f"task_id may have at most {LONGEST_ID} characters")
    return task_id


def _created_id(task: dict[str, Any]) -> str:
    """Return the id that the answer to a create call has under another name: `taskId`, or `id` beside a known status.

    An `id` alone may be that of the request or of the account.
    """
    if task.get("task_id"):
        return ""
    has_status = fields.read_task_status(task)[0] is not None
    return fields.read_task_id(task.get("taskId")) or (fields.read_task_id(task.get("id")) if has_status else "")
