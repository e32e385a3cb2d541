"""Tasks as Replicate's predictions, and the text by which its clients name a provider, a model and a task type.

Source: `receiver/api/CONTRACTS.md`, "Replicate". Arguments are rows.
"""

import re
from datetime import datetime
from typing import Any

import orjson
from msgspec import Struct

from models import EventType, TaskStatus
from receiver.domain.outputs import own_output, result_urls
from receiver.domain.representations import Fields, iso, standard_body, task_at

REPLICATE = "replicate"
"""The provider of a model that is named without one."""
TASK_TYPE = "prediction"
"""The task type where none is named."""
STARTING = "starting"
EVENTS: dict[str, tuple[EventType, ...]] = {
    "start": (EventType.TASK_SUBMITTED,),
    "output": (EventType.TASK_COMPLETED,),
    "logs": (EventType.TASK_UPDATED,),
    "completed": (EventType.TASK_COMPLETED, EventType.TASK_FAILED, EventType.TASK_CANCELLED),
}
"""The words of Replicate's `webhook_events_filter`, and the events that each stands for."""
_STATUS = {
    TaskStatus.PROCESSING: "processing",
    TaskStatus.COMPLETED: "succeeded",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "canceled",
}
_NO_VERSION = "hidden"
_PROVIDER = re.compile(r"([A-Za-z0-9_-]+):(.*)", re.DOTALL)
"""No owner at Replicate has a colon, and a version's colon follows the slash after the owner."""
_VERSION = re.compile(r"[0-9a-f]{64}")


class NamedModel(Struct, frozen=True):
    """What the text of a model names; `task_type` is None if it names none."""

    provider: str
    model: str
    task_type: str | None


class Addresses(Struct, frozen=True):
    """Where the service is reached, without a slash at the end; `has_pages` says whether it shows tasks as pages."""

    base: str
    has_pages: bool

    def of(self, uid: str) -> dict[str, str]:
        """Return the addresses of a prediction."""
        own = f"{self.base}/v1/predictions/{uid}"
        pages = {"web": f"{self.base}/tasks/{uid}"} if self.has_pages else {}
        return {"get": own, "cancel": f"{own}/cancel", **pages}


def read_model(text: str) -> NamedModel:
    """Return what `provider:model@task_type` names; without a provider it is a model of Replicate's, as it stands.

    One slash after the colon means nothing: Replicate's client wants one somewhere in a model's name.
    """
    match = _PROVIDER.fullmatch(text)
    if match is None:
        return NamedModel(REPLICATE, text, None)
    model, at, task_type = match[2].removeprefix("/").rpartition("@")
    return NamedModel(match[1], model, task_type) if at else NamedModel(match[1], task_type, None)


def write_model(task: Fields) -> str:
    """Return the text that names a task's provider, model and task type."""
    if task["provider"] == REPLICATE:
        return str(task["model"])
    is_clear = task["task_type"] == TASK_TYPE and "@" not in task["model"]
    task_type = "" if is_clear else f"@{task['task_type']}"
    return f"{task['provider']}:{task['model']}{task_type}"


def prediction(task: Fields, addresses: Addresses | None) -> dict[str, Any]:
    """Return a task as a prediction. Without `addresses` its `urls` are empty."""
    status = _STATUS.get(task["status"], STARTING)
    model, version = _model_and_version(task)
    return {
        "id": task["uid"],
        "model": model,
        "version": version,
        "status": status,
        "input": task["input"] if isinstance(task["input"], dict) else None,
        "output": _output(task, is_whole=status == "succeeded"),
        "error": str((task["error"] or {}).get("message") or "the task failed") if status == "failed" else None,
        "logs": "\n".join(map(_line, task["logs"] or [])),
        "metrics": _metrics(task),
        "created_at": iso(task["created_at"]),
        "started_at": iso(task["started_at"]),
        "completed_at": iso(task["ended_at"]),
        "data_removed": False,
        "source": "api",
        "urls": {} if addresses is None else addresses.of(task["uid"]),
    }


def starting(shown: dict[str, Any]) -> dict[str, Any]:
    """Return a prediction that has not ended as `starting`.

    A client that asked to wait takes any other status for an end.
    """
    return {**shown, "status": STARTING, "output": None}


def prediction_body(task: Fields | None, event: Fields, addresses: Addresses | None) -> dict[str, Any]:
    """Return the body of a delivery: the prediction as it was then, or what an event without a task is about."""
    return standard_body(None, event) if task is None else prediction(task_at(task, event), addresses)


def _model_and_version(task: Fields) -> tuple[str, str]:
    text = write_model(task)
    if task["provider"] != REPLICATE:
        return text, _NO_VERSION
    model, _, version = text.partition(":")
    return model, version or (text if _VERSION.fullmatch(text) else _NO_VERSION)


def _output(task: Fields, *, is_whole: bool) -> Any:
    """Return the output of a task: Replicate's own, else the URLs of its files, else what the model answered."""
    if not task["output"] or not (is_whole or task["provider"] == REPLICATE):
        return None
    urls = [] if task["provider"] == REPLICATE else result_urls(task["output"])
    return urls or own_output(task["output"])


def _line(line: Any) -> str:
    text = line.get("message") if isinstance(line, dict) else line
    return text if isinstance(text, str) else orjson.dumps(line).decode()


def _metrics(task: Fields) -> dict[str, Any]:
    """Return the provider's own metrics, and the times that are known besides."""
    given = (task["meta"] or {}).get("metrics")
    began, ended = task["started_at"], task["ended_at"]
    times = {} if ended is None else {"total_time": _seconds(task["created_at"], ended)}
    if ended is not None and began is not None:
        times["predict_time"] = _seconds(began, ended)
    return times | (given if isinstance(given, dict) else {})


def _seconds(since: datetime | str, until: datetime | str) -> float:
    return max(0.0, (_moment(until) - _moment(since)).total_seconds())


def _moment(value: datetime | str) -> datetime:
    """Return a time of a row, or of the snapshot of an event."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
