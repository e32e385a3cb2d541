"""A task in PiAPI's JSON: the usual envelope and the older one. Pure."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson

from receiver.sandbox.task import SandboxTask

_STATUSES = frozenset({"staged", "pending", "processing", "completed", "failed", "cancelled"})
_ZERO_TIME = "0001-01-01T00:00:00Z"
_OFFSET = timezone(timedelta(hours=8))
PRICE = 20000
"""The points that a task costs."""
_NUMBERS = {"staged": 5, "pending": 5, "processing": 10}
_DONE = 99


def envelope(task: SandboxTask) -> dict[str, Any]:
    """Return the response body of a create or a poll."""
    code = task.script.code
    if code is None:
        code = 0 if task.shape == "old_envelope" else task.family.code
    return {"code": code, "message": "success", "data": task_data(task)}


def task_data(task: SandboxTask, word: str | None = None) -> dict[str, Any]:
    """Return the task in PiAPI's JSON, with the webhook secret in clear text; `word` replaces the status."""
    word = word if word is not None else _status_word(task)
    match task.shape:
        case "old_envelope":
            return _older_data(task, word)
        case "old_suno":
            return _old_suno_data(task, word)
        case _:
            return _data(task, word)


def raw_task(task: SandboxTask) -> dict[str, Any]:
    """Return the task in the sandbox's own form, the same for every model, without the webhook secret."""
    return {
        "task_id": task.id,
        "model": task.request.model,
        "task_type": task.request.task_type,
        "endpoint": task.endpoint,
        "status": task.status,
        "terminal": task.terminal,
        "input": task.request.input,
        "output": task.output,
        "error": task.error,
        "logs": task.logs,
        "polls": task.polls,
        "created_at": task.created_ns / 1e9,
    }


def _data(task: SandboxTask, word: str) -> dict[str, Any]:
    request, webhook = task.request, task.request.webhook
    frozen, consume = _usage(task)
    return {
        "task_id": task.id,
        "model": request.model,
        "task_type": request.task_type,
        "status": word,
        "config": {
            "service_mode": (request.config and request.config.service_mode) or "",
            "webhook_config": {"endpoint": webhook.endpoint, "secret": webhook.secret},
        },
        "input": _input_text(task) if task.script.input_as_string else request.input,
        "output": task.output,
        "meta": {
            **_times(task),
            "usage": {"type": "point", "frozen": frozen, "consume": consume},
            "is_using_private_pool": False,
        },
        "detail": None,
        "logs": task.logs or (None if task.started_ns is None else []),
        "error": _error(task),
    }


def _older_data(task: SandboxTask, word: str) -> dict[str, Any]:
    number = _NUMBERS.get(task.status, _DONE)
    frozen, consume = _usage(task)
    arguments = [{"name": "input", "value": _input_text(task)}]
    inputs = [{"inputType": "TEXT", "name": "", "url": "", "blobStorage": None, "token": None}]
    milliseconds = task.created_ns // 1_000_000
    data: dict[str, Any] = {
        "task_id": task.id,
        "input": _input_text(task),
        "status": word,
        "metadata": {**_times(task), "quota_frozen": frozen, "quota_usage": consume},
        "task": {
            "id": 1,
            "userId": 1,
            "type": task.request.task_type,
            "status": number,
            "taskInfo": {"arguments": arguments, "inputs": inputs, "type": task.request.task_type},
            "favored": False,
            "deleted": False,
            "createTime": milliseconds,
            "updateTime": (task.ended_ns or task.started_ns or task.created_ns) // 1_000_000,
        },
        "works": (task.output or {}).get("works", []),
    }
    if task.error is not None:
        data["error"] = _error(task)
    return data


def _old_suno_data(task: SandboxTask, word: str) -> dict[str, Any]:
    """Return the form of suno's older path, which has the clips beside the status and no output."""
    frozen, consume = _usage(task)
    data = {
        "task_id": task.id,
        "input": _input_text(task),
        "status": word,
        "clips": (task.output or {}).get("clips"),
        "metadata": {**_times(task), "quota_frozen": frozen, "quota_usage": consume},
    }
    return data if task.error is None else {**data, "error": _error(task)}


def _status_word(task: SandboxTask) -> str:
    if task.status not in _STATUSES:
        return task.status
    word, family = task.status, task.family
    if word == "completed":
        word = task.script.success_word or family.success_word
    cases = {"lower": word, "title": word.title(), "upper": word.upper()}
    return cases[task.script.status_case or family.status_case]


def _input_text(task: SandboxTask) -> str:
    return orjson.dumps(task.request.input).decode()


def _usage(task: SandboxTask) -> tuple[int, int]:
    """Return the points reserved and the points spent."""
    if not task.terminal:
        return PRICE, 0
    return 0, 0 if task.error or task.output is None else PRICE


def _error(task: SandboxTask) -> dict[str, Any]:
    error = task.error
    if error is None:
        return {"code": 0, "raw_message": "", "message": "", "detail": None}
    return {"code": error.code, "raw_message": error.raw_message, "message": error.message, "detail": None}


def _times(task: SandboxTask) -> dict[str, str]:
    times = {"created_at": task.created_ns, "started_at": task.started_ns, "ended_at": task.ended_ns}
    return {name: _time(moment, task.script.timestamps) for name, moment in times.items()}


def _time(moment: int | None, form: str) -> str:
    if moment is None or form == "zero":
        return _ZERO_TIME
    seconds, nanoseconds = divmod(moment, 1_000_000_000)
    if form == "offset":
        return datetime.fromtimestamp(seconds, _OFFSET).isoformat()
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
