"""Tasks, events and subscriptions as JSON values, in each of the dialects: Ringback's own, PiAPI's, Pi's and the
delivery formats. Arguments are rows."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from models import TERMINAL, EventType, TaskStatus
from receiver.domain.decisions import STORED_ONCE
from receiver.domain.error_numbers import piapi_error
from receiver.domain.outputs import main_url

Fields = Mapping[str, Any]
"""A row, or the values that a row would have, by column name."""

_ZERO_TIME = "0001-01-01T00:00:00Z"
"""What PiAPI writes for a time that is not set."""
_OFFSET_LENGTH = len("+00:00")
_STORED_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
"""A time in UTC as a stored document has it."""
_PIAPI_STATUS = {TaskStatus.QUEUED: TaskStatus.PENDING}
"""PiAPI has no status for a task that it has not accepted yet."""
_JOB_STATUS = {
    TaskStatus.PROCESSING: "processing",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "failed",
}
_WEBHOOK_TIMES = ("failing_since", "created_at", "updated_at")
_JOB_EVENT: Mapping[str, str] = {EventType.TASK_COMPLETED: "job.completed", EventType.TASK_FAILED: "job.failed"}
BRIEF = frozenset({"input", "output", "logs", "config", "usage"})
"""What a brief view of a task leaves out: all that may be large."""
EVENT_FIELDS = (
    "status",
    "submission",
    "attempt",
    "progress",
    "provider_task_id",
    "error",
    "started_at",
    "ended_at",
    "words",
    *STORED_ONCE,
)
"""The columns of a task whose values at the time of an event are in the event's snapshot."""


def native_task(task: Fields) -> dict[str, Any]:
    """Return a task as `GET /api/v1/tasks/{id}` returns it. Times are ISO 8601 in UTC, or null."""
    return {
        "object": "task",
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
        "unknown_statuses": task["words"] or [],
        "run_id": task["run_uid"],
        "step": task["step"],
        "usage": (task["meta"] or {}).get("usage"),
        "created_at": iso(task["created_at"]),
        "updated_at": iso(task["updated_at"]),
        "started_at": iso(task["started_at"]),
        "ended_at": iso(task["ended_at"]),
    }


def task_standing(task: Fields) -> dict[str, Any]:
    """Return how far a task is, without what it is made of. Times are ISO 8601 in UTC, or null."""
    return {
        "task_id": task["uid"],
        "provider_task_id": task["provider_task_id"],
        "status": task["status"],
        "has_ended": task["status"] in TERMINAL,
        "progress": task["progress"],
        "attempt": task["attempt"],
        **{name: iso(task[name]) for name in ("created_at", "updated_at", "ended_at")},
    }


def brief_task(task: Fields) -> dict[str, Any]:
    """Return a task without what may be large; the row may have nulls there."""
    return {name: value for name, value in native_task(task).items() if name not in BRIEF}


def brief_event(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return an event whose `data` is without what may be large."""
    view = native_event(task, event)
    data = {name: value for name, value in view["data"].items() if name not in BRIEF}
    if task is None and "steps" in data:  # of a run, whose steps have their results
        data["steps"] = [{name: value for name, value in step.items() if name != "result"} for step in data["steps"]]
    return {**view, "data": data}


def native_attempts(task: Fields, earlier: Sequence[Fields]) -> list[dict[str, Any]]:
    """Return all attempts of a task, oldest first: the rows of the `earlier` ones, and the current one from `task`."""
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
    """Return a task in PiAPI's form (`receiver/providers/piapi/CONTRACT.md`, "Task").

    The provider's own id is in `meta.provider_task_id`. `config.webhook_config` has the client's endpoint, but never
    its secret.
    """
    return {
        "task_id": task["uid"],
        "model": task["model"],
        "task_type": task["task_type"],
        "status": _PIAPI_STATUS.get(task["status"], task["status"]),
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
            "started_at": iso(task["started_at"]) or _ZERO_TIME,
            "ended_at": iso(task["ended_at"]) or _ZERO_TIME,
            "provider_task_id": task["provider_task_id"],
            "attempt": task["attempt"],
        },
        "detail": task["detail"],
        "logs": task["logs"] or [],
        "error": piapi_error(task["error"]),
    }


def piapi_shortened_task(task: Fields) -> dict[str, Any]:
    """Return a task that is too large for its page: without its documents, which `meta.is_shortened` tells."""
    shown = piapi_task(task)
    return {**shown, "meta": {**shown["meta"], "is_shortened": True}}


def piapi_active_task(task: Fields) -> dict[str, Any]:
    """Return a task that has not ended as an item of PiAPI's active tasks: a part of `piapi_task`, under its names."""
    return {
        "task_id": task["uid"],
        "model": task["model"],
        "task_type": task["task_type"],
        "status": _PIAPI_STATUS.get(task["status"], task["status"]),
        "meta": {
            "created_at": iso(task["created_at"]),
            "started_at": iso(task["started_at"]) or _ZERO_TIME,
            "ended_at": _ZERO_TIME,
            "provider_task_id": task["provider_task_id"],
            "attempt": task["attempt"],
        },
    }


def pi_job(task: Fields) -> dict[str, Any]:
    """Return a task as Pi's job (`receiver/api/CONTRACTS.md`, "Pi"). Times are unix seconds."""
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


def native_event(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return an event as the API returns it everywhere: in pages, in the stream, in a task's history, in diagnostics.

    `task` is None for an event without a task. `type`, `timestamp` and `data` are those of a delivery in the format
    `standard`. `created_at`, which all resources have, is the same time.
    """
    snapshot, moment = event["snapshot"], iso(event["created_at"])
    return {
        "object": "event",
        "id": event["uid"],
        "sequence": event["id"],
        "type": event["type"],
        "timestamp": moment,
        "created_at": moment,
        "task_id": None if task is None else task["uid"],
        "run_id": event["run_uid"],
        "source": snapshot.get("source"),
        "provider_status": snapshot.get("provider_status"),
        "retry_at": iso(snapshot.get("retry_at")),
        "request_id": event["request_id"],
        "data": _event_data(task, event),
    }


def native_webhook(subscription: Fields) -> dict[str, Any]:
    """Return a subscription as Pi's webhook with Ringback's additional fields. Encrypted columns are left out."""
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
    """Return the task's columns as they were at `event`, so that every attempt of a delivery has the same body.

    The columns `STORED_ONCE` of a task that completed with its result are read from its row, where they never change
    again.
    """
    snapshot = event["snapshot"]
    then = {name: snapshot.get(name) for name in EVENT_FIELDS}
    if event["type"] == EventType.TASK_COMPLETED and "output" not in snapshot:
        then.update({name: task[name] for name in STORED_ONCE})
    return {**task, **then, "progress": then["progress"] or 0, "updated_at": event["created_at"]}


def standard_body(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return the body of a Standard Webhooks delivery. In all formats, `task` is None for an event without a task."""
    return {
        "type": event["type"],
        "timestamp": iso(event["created_at"]),
        "data": _event_data(task, event),
    }


def cloudevents_body(task: Fields | None, event: Fields, source: str) -> dict[str, Any]:
    """Return the body of a delivery as a CloudEvent 1.0.2 in structured mode; `source` is a URI.

    `subject` is the id of the task or run that the event is about, and absent if it is about neither.
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
        "data": _event_data(task, event),
    }


def pi_body(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return the body of a delivery in Pi's form."""
    return {
        "id": f"evt_pi_{event['uid']}",
        "object": "event",
        "type": job_event_type(event["type"]),
        "created_at": unix(event["created_at"]),
        "data": _event_data(None, event)
        if task is None
        else {"job": pi_job(task_at(task, event)), **_earlier_end(event)},
    }


def piapi_body(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return the body of a delivery in PiAPI's form, for a client's `config.webhook_config`.

    PiAPI sends webhooks about tasks only, so its form has no `type`. The body for an event without a task has one, to
    tell it from a task.
    """
    timestamp = unix(event["created_at"])
    if task is None:
        return {"timestamp": timestamp, "type": event["type"], "data": _event_data(None, event)}
    data = piapi_task(task_at(task, event))
    return {"timestamp": timestamp, "data": {**data, "meta": {**data["meta"], **_earlier_end(event)}}}


def job_event_type(event_type: str) -> str:
    """Return Pi's name of an event type: `job.completed` or `job.failed`; other types keep Ringback's name."""
    return _JOB_EVENT.get(event_type, event_type)


def _event_data(task: Fields | None, event: Fields) -> dict[str, Any]:
    """Return what an event is about, as it was then: a task, a run, or a webhook."""
    if task is not None:
        return {**native_task(task_at(task, event)), **_earlier_end(event)}
    snapshot: Fields = event["snapshot"]
    if event["run_uid"] is not None:
        return {"object": "run", **snapshot}
    if "webhook" in snapshot:
        return {**snapshot, "webhook": _webhook_then(snapshot["webhook"])}
    return dict(snapshot)


def _webhook_then(webhook: Fields) -> dict[str, Any]:
    """Return the webhook of a stored snapshot. Those of earlier versions have times of another precision."""
    return {**webhook, **{name: iso(webhook[name]) for name in _WEBHOOK_TIMES}}


def _earlier_end(event: Fields) -> dict[str, Any]:
    """Return the id of the earlier end that a correction replaces (`corrects`) or a client retried (`retries`).

    The `note` of a correction says who is charged for what, where the earlier end was Ringback's own conclusion.
    """
    return {name: event["snapshot"][name] for name in ("corrects", "retries", "note") if name in event["snapshot"]}


def result_url(output: Fields | None) -> str | None:
    """Return the URL of the main result in a normalised output, as `receiver.domain.outputs.main_url` finds it."""
    return main_url(output) if output else None


def iso(moment: datetime | str | None) -> str | None:
    """Return a time as ISO 8601 in UTC with microseconds and a `Z`: always 27 characters, so that texts sort as times.

    A string is a time as JSON has it, such as in a stored snapshot.
    """
    if moment is None:
        return None
    if isinstance(moment, str):
        if _STORED_TIME.fullmatch(moment):
            return moment[:-_OFFSET_LENGTH] + "Z"
        moment = datetime.fromisoformat(moment)
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # In a third of the time that `isoformat` takes; a fraction that is 0 is left out.
    text = orjson.dumps(moment, option=orjson.OPT_UTC_Z).decode()[1:-2]
    return f"{text}Z" if moment.microsecond else f"{text}.000000Z"


def unix(moment: datetime | str) -> int:
    """Return a time as whole unix seconds."""
    return int((datetime.fromisoformat(moment) if isinstance(moment, str) else moment).timestamp())
