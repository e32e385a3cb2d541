"""How a task, an event and a subscription look from outside, in each dialect. Rows in, plain JSON values out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from models import EventType, TaskStatus
from receiver.domain.transitions import STORED_ONCE

Fields = Mapping[str, Any]
"""A row, or what a row would be, by column name."""

_NEVER = "0001-01-01T00:00:00Z"
_OFFSET = len("+00:00")
_NO_ERROR = {"code": 0, "raw_message": "", "message": "", "detail": None}
_PIAPI_STATUS = {TaskStatus.QUEUED: TaskStatus.PENDING}
"""PiAPI has no word for what it has not seen yet."""
_JOB_STATUS = {
    TaskStatus.PROCESSING: "processing",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "failed",
}
_JOB_EVENT: Mapping[str, str] = {EventType.TASK_COMPLETED: "job.completed", EventType.TASK_FAILED: "job.failed"}
EVENT_FIELDS = (
    "status",
    "submission",
    "attempt",
    "progress",
    "provider_task_id",
    "error",
    "started_at",
    "ended_at",
    *STORED_ONCE,
)
"""The columns of a task that an event's snapshot speaks for."""


def native_task(task: Fields) -> dict[str, Any]:
    """Return a task as `GET /api/v1/tasks/{id}` gives it. Times are ISO 8601 in UTC, or null."""
    return {
        "task_id": task["uid"],
        "model": task["model"],
        "task_type": task["task_type"],
        "status": task["status"],
        "progress": task["progress"],
        "input": task["input"],
        "output": task["output"],
        "error": task["error"],
        "logs": task["logs"] or [],
        "metadata": task["metadata"] or {},
        "config": task["config"] or {},
        "attempt": task["attempt"],
        "max_attempts": task["max_attempts"],
        "submission": task["submission"],
        "provider": task["provider"],
        "provider_task_id": task["provider_task_id"],
        "run_id": task["run_uid"],
        "step": task["step"],
        "usage": (task["meta"] or {}).get("usage"),
        "created_at": iso(task["created_at"]),
        "updated_at": iso(task["updated_at"]),
        "started_at": iso(task["started_at"]),
        "ended_at": iso(task["ended_at"]),
    }


def native_attempts(task: Fields, earlier: Sequence[Fields]) -> list[dict[str, Any]]:
    """Return every attempt at a task, oldest first; the last one is the present one, as the task's row has it."""
    return [_attempt(each["number"], each) for each in earlier] + [_attempt(task["attempt"], task)]


def _attempt(number: int, fields: Fields) -> dict[str, Any]:
    return {
        "attempt": number,
        "status": fields["status"],
        "provider_task_id": fields["provider_task_id"],
        "error": fields["error"],
        **{name: iso(fields[name]) for name in ("submitted_at", "started_at", "ended_at")},
    }


def piapi_task(task: Fields) -> dict[str, Any]:
    """Return a task in PiAPI's form (contracts/piapi.md); the provider's own id is `meta.provider_task_id`.

    `config.webhook_config` names the client's endpoint and never its secret.
    """
    status = _PIAPI_STATUS.get(task["status"], task["status"])
    error = task["error"]
    return {
        "task_id": task["uid"],
        "model": task["model"],
        "task_type": task["task_type"],
        "status": status,
        "config": {
            "service_mode": "",
            **(task["config"] or {}),
            "webhook_config": {"endpoint": task.get("callback_url") or "", "secret": ""},
        },
        "input": task["input"],
        "output": task["output"],
        "meta": {
            **(task["meta"] or {}),
            "created_at": iso(task["created_at"]),
            "started_at": iso(task["started_at"]) or _NEVER,
            "ended_at": iso(task["ended_at"]) or _NEVER,
            "provider_task_id": task["provider_task_id"],
            "attempt": task["attempt"],
        },
        "detail": task["detail"],
        "logs": task["logs"] or [],
        "error": {**_NO_ERROR, **error} if error else _NO_ERROR,
    }


def pi_job(task: Fields) -> dict[str, Any]:
    """Return a task as Pi's job (contracts/pi.md). Times are unix seconds."""
    return {
        "id": task["uid"],
        "type": task["task_type"],
        "status": _JOB_STATUS.get(task["status"], "queued"),
        "result_url": result_url(task["output"]),
        "error_log": (task["error"] or {}).get("message"),
        "payload": task["input"],
        "created_at": unix(task["created_at"]),
        "updated_at": unix(task["updated_at"]),
    }


def native_event(event: Fields, task_uid: str) -> dict[str, Any]:
    """Return an event as the history gives it; the output of a completed task stands in the task itself."""
    return {
        "id": event["uid"],
        "sequence": event["id"],
        "type": event["type"],
        "task_id": task_uid,
        "created_at": iso(event["created_at"]),
        "data": event["snapshot"],
    }


def stream_event(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return an event as `GET /api/v1/events` and its stream give it: the task as it was then, as deliveries do."""
    return {
        "id": event["uid"],
        "type": event["type"],
        "timestamp": iso(event["created_at"]),
        "sequence": event["id"],
        "data": _told(task, event),
    }


def native_webhook(subscription: Fields) -> dict[str, Any]:
    """Return a subscription as Pi's webhook, with Ringback's own fields besides; nothing that is encrypted."""
    return {
        "object": "webhook",
        "id": subscription["uid"],
        "endpoint_url": subscription["endpoint_url"],
        "is_active": subscription["is_active"],
        "format": subscription["format"],
        "event_types": subscription["event_types"],
        "filters": subscription["filters"],
        "description": subscription["description"],
        "rate_limit": subscription["rate_limit"],
        "max_in_flight": subscription["max_in_flight"],
        "ordered": subscription["ordered"],
        "signature": subscription["signature"],
        "failing_since": iso(subscription["failing_since"]),
        "disabled_reason": subscription["disabled_reason"],
        "created_at": iso(subscription["created_at"]),
        "updated_at": iso(subscription["updated_at"]),
    }


def task_at(task: Fields, event: Fields) -> dict[str, Any]:
    """Return the task's columns as they were at `event`: the same for every attempt, however late.

    What a completed task has to show is read from its row: they are stored once, and never change again.
    """
    snapshot = event["snapshot"]
    then = {name: snapshot.get(name) for name in EVENT_FIELDS}
    if event["type"] == EventType.TASK_COMPLETED:
        then.update({name: task[name] for name in STORED_ONCE})
    return {**task, **then, "progress": then["progress"] or 0, "updated_at": event["created_at"]}


def standard_body(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return the body of a Standard Webhooks delivery. In every form, an event of no task tells its snapshot."""
    return {
        "type": event["type"],
        "timestamp": iso(event["created_at"]),
        "data": _told(task, event),
    }


def cloudevents_body(task: Fields | None, event: Fields, source: str) -> dict[str, Any]:
    """Return the body of a delivery as a CloudEvent 1.0.2 in structured mode; `source` is a URI.

    `subject` is the task's id, or the run's that the event is about; what is about neither has none.
    """
    subject = event.get("run_uid") if task is None else task["uid"]
    return {
        "specversion": "1.0",
        "id": event["uid"],
        "source": source,
        "type": event["type"],
        "time": iso(event["created_at"]),
        **({"subject": subject} if subject is not None else {}),
        "datacontenttype": "application/json",
        "data": _told(task, event),
    }


def pi_body(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return the body of a delivery in Pi's form."""
    return {
        "id": f"evt_pi_{event['uid']}",
        "object": "event",
        "type": job_event_type(event["type"]),
        "created_at": unix(event["created_at"]),
        "data": event["snapshot"] if task is None else {"job": pi_job(task_at(task, event))},
    }


def piapi_body(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return the body of a delivery in PiAPI's form, as the client's own `webhook_config` expects it.

    PiAPI tells of tasks alone, so its form has no `type`; an event of no task has one, to be known by.
    """
    timestamp = unix(event["created_at"])
    if task is None:
        return {"timestamp": timestamp, "type": event["type"], "data": event["snapshot"]}
    return {"timestamp": timestamp, "data": piapi_task(task_at(task, event))}


def job_event_type(event_type: str) -> str:
    """Return Pi's name for an event: `job.completed`, `job.failed`; the others keep ours."""
    return _JOB_EVENT.get(event_type, event_type)


def _told(task: Fields | None, event: Fields) -> Any:
    return event["snapshot"] if task is None else native_task(task_at(task, event))


def result_url(output: Fields | None) -> str | None:
    """Return the one URL that a finished task is about, or None."""
    if not output:
        return None
    for name in ("video_url", "image_url", "audio_url"):
        if isinstance(output.get(name), str) and output[name]:
            return str(output[name])
    images = output.get("image_urls")
    return str(images[0]) if isinstance(images, list) and images else None


def iso(moment: datetime | str | None) -> str | None:
    """Return a moment as ISO 8601 in UTC with a `Z`; text is what JSON made of a moment."""
    if moment is None:
        return None
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat()[:-_OFFSET] + "Z"


def unix(moment: datetime | str) -> int:
    """Return a moment as whole unix seconds."""
    return int((datetime.fromisoformat(moment) if isinstance(moment, str) else moment).timestamp())
