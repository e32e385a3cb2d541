"""What a subscription matches: event types, and filters on the task or run that an event is about."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from models import RUN_EVENTS, SYSTEM_EVENTS, TASK_EVENTS, EventType
from receiver.domain.ids import is_id
from receiver.errors import BadRequest

TASK_END_EVENTS = (EventType.TASK_COMPLETED, EventType.TASK_FAILED, EventType.TASK_CANCELLED)
PI_EVENTS: Mapping[str, EventType] = {"job.completed": EventType.TASK_COMPLETED, "job.failed": EventType.TASK_FAILED}
"""Pi's names of event types, and the event types that they stand for."""
_WILDCARDS = {"task.*": TASK_EVENTS, "run.*": RUN_EVENTS, "system.*": SYSTEM_EVENTS}
SUBSCRIBABLE = tuple(event for event in EventType if event != EventType.PING)
MOST_VALUES = 50
LONGEST_NAME = 200
LONGEST_VALUE = 500
_FILTER_NAMES = "model, task_type, run_id and metadata"

Filters = Mapping[str, Any]
"""Checked filters: `model`, `task_type` and `run_id` are lists of accepted values, `metadata` an object of lists."""


def check_event_types(wanted: Sequence[str] | None, *, as_pi: bool) -> list[str]:
    """Return the event types that a list names, sorted. `task.*`, `run.*`, `system.*` and Pi's names are allowed too.

    None stands for the events of a task's end (`as_pi`: completed and failed alone). Raises `BadRequest` that lists the
    allowed names.
    """
    if wanted is None:
        return list(PI_EVENTS.values() if as_pi else TASK_END_EVENTS)
    types: set[str] = set()
    for name in wanted:
        if name in _WILDCARDS:
            types.update(_WILDCARDS[name])
        elif name in PI_EVENTS:
            types.add(PI_EVENTS[name])
        elif name in SUBSCRIBABLE:
            types.add(name)
        else:
            raise BadRequest(_event_type_message(name), param="event_types")
    if not types:
        raise BadRequest("name at least one event type, or omit the list", param="event_types")
    return sorted(types)


def check_filters(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return filters with each value as a list of accepted values; None for no filters.

    `{"model": "flux", "metadata": {"customer": 7}}` becomes `{"model": ["flux"], "metadata": {"customer": [7]}}`.
    Raises `BadRequest` whose `param` is the field, such as `filters.model`.
    """
    if not filters:
        return None
    return {name: _check_filter(name, value) for name, value in filters.items()}


def matches(
    filters: Filters | None,
    *,
    model: str | None,
    task_type: str | None,
    metadata: Mapping[str, Any] | None,
    run_uid: str | None = None,
) -> bool:
    """Return whether an event passes checked filters: each of them accepts the value that the event's task has.

    Metadata values are compared as JSON text, so that `7` equals `"7"`, as in a query string. For an event about a run
    (`model` None) only `run_id` and `metadata` are compared, because a run has no model. An event about neither a task
    nor a run passes every filter: a subscription excludes such events by their type.
    """
    if not filters:
        return True
    if "run_id" in filters and (run_uid or model) is not None and run_uid not in filters["run_id"]:
        return False
    if model is None:
        return run_uid is None or _has(metadata or {}, filters.get("metadata", {}))
    task = {"model": model, "task_type": task_type, "run_id": run_uid}
    return all(
        _has(metadata or {}, wanted) if name == "metadata" else task.get(name) in wanted
        for name, wanted in filters.items()
    )


def _has(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        name in metadata and _text(metadata[name]) in (_text(value) for value in values)
        for name, values in wanted.items()
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _event_type_message(name: str) -> str:
    if name == EventType.PING:
        return "ping needs no subscription: `POST /api/v1/webhooks/{id}/test` sends it to that webhook alone"
    allowed = ", ".join([*SUBSCRIBABLE, *_WILDCARDS, *PI_EVENTS])
    return f"{name[:60]!r} is not an event type; allowed are {allowed}"


def _check_filter(name: str, value: Any) -> Any:
    match name:
        case "model" | "task_type":
            return _names(name, value)
        case "run_id":
            return _run_ids(value)
        case "metadata":
            return _metadata(value)
    raise _refused(name[:60], f"unknown filter; allowed are {_FILTER_NAMES}")


def _names(field: str, value: Any) -> list[str]:
    names = _as_list(field, value)
    if not all(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME for name in names):
        raise _refused(field, f"must be a string of 1 to {LONGEST_NAME} characters, or a list of such strings")
    return names


def _run_ids(value: Any) -> list[str]:
    ids = [each.lower() for each in _names("run_id", value)]
    if not all(map(is_id, ids)):
        # If it were accepted, the subscription would silently match nothing.
        raise _refused("run_id", "must be the id of a run (a UUID), or a list of such ids")
    return ids


def _metadata(wanted: Any) -> dict[str, list[Any]]:
    if not isinstance(wanted, dict) or not 0 < len(wanted) <= MOST_VALUES:
        raise _refused("metadata", f"must be an object with 1 to {MOST_VALUES} members")
    return {name: _metadata_values(name, value) for name, value in wanted.items()}


def _metadata_values(name: str, value: Any) -> list[Any]:
    field = f"metadata.{name[:60]}"
    values = _as_list(field, value)
    if not 0 < len(name) <= LONGEST_NAME:
        raise _refused(field, f"its name must have 1 to {LONGEST_NAME} characters")
    if not all(isinstance(each, str | int | float) and len(_text(each)) <= LONGEST_VALUE for each in values):
        raise _refused(
            field, f"must be a string of at most {LONGEST_VALUE} characters, a number or a boolean, or a list of these"
        )
    return values


def _as_list(field: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MOST_VALUES:
        raise _refused(field, f"must name 1 to {MOST_VALUES} values")
    return values


def _refused(field: str, message: str) -> BadRequest:
    return BadRequest(message, param=f"filters.{field}")
