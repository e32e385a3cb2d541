"""What a subscription listens to: event types, and filters on the tasks that events speak of. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from models import RUN_EVENTS, TASK_EVENTS, EventType
from receiver.domain.ids import is_id
from receiver.errors import BadRequest

ENDS = (EventType.TASK_COMPLETED, EventType.TASK_FAILED, EventType.TASK_CANCELLED)
PI_EVENTS: Mapping[str, EventType] = {"job.completed": EventType.TASK_COMPLETED, "job.failed": EventType.TASK_FAILED}
"""Pi's names for events, and ours."""
_ALL_OF = {"task.*": TASK_EVENTS, "run.*": RUN_EVENTS}
SUBSCRIBABLE = tuple(event for event in EventType if event != EventType.PING)
MOST_VALUES = 50
LONGEST_NAME = 200
LONGEST_VALUE = 500
_ALLOWED = "model, task_type, run_id and metadata"

Filters = Mapping[str, Any]
"""Checked filters: `model`, `task_type` and `run_id` are lists of what is wanted, `metadata` an object of such."""


def check_event_types(wanted: Sequence[str] | None, *, as_pi: bool) -> list[str]:
    """Return the event types that a list asks for; `task.*` and `run.*` mean all of them, and Pi's names are known.

    None means the ends of tasks (for Pi: completed and failed). Raises `BadRequest` that says what is allowed.
    """
    if wanted is None:
        return list(PI_EVENTS.values() if as_pi else ENDS)
    known: set[str] = set()
    for name in wanted:
        if name in _ALL_OF:
            known.update(_ALL_OF[name])
        elif name in PI_EVENTS:
            known.add(PI_EVENTS[name])
        elif name in SUBSCRIBABLE:
            known.add(name)
        else:
            raise BadRequest(_unknown_event_type(name), param="event_types")
    if not known:
        raise BadRequest("name at least one event type, or leave the list out", param="event_types")
    return sorted(known)


def check_filters(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return filters with every value as a list of what is wanted; None where there are none.

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
    """Say whether an event passes checked filters: each names a value that its task has.

    Metadata is compared by how JSON writes it, so that `7` and `"7"` are one, as in a query. An event of no task
    (`model` None) passes: filters say which tasks, and whoever wants none of these events does not name their type.
    Only `run_id` and `metadata` say which runs too, for a run has both.
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


def _unknown_event_type(name: str) -> str:
    if name == EventType.PING:
        return "nobody subscribes to ping: `POST /api/v1/webhooks/{id}/test` sends it to that webhook alone"
    allowed = ", ".join([*SUBSCRIBABLE, *_ALL_OF, *PI_EVENTS])
    return f"there is no event type {name[:60]!r}; allowed are {allowed}"


def _check_filter(name: str, value: Any) -> Any:
    match name:
        case "model" | "task_type":
            return _names(name, value)
        case "run_id":
            return _run_ids(value)
        case "metadata":
            return _metadata(value)
    raise _refused(name[:60], f"there is no such filter; allowed are {_ALLOWED}")


def _names(field: str, value: Any) -> list[str]:
    names = _listed(field, value)
    if not all(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME for name in names):
        raise _refused(field, f"must be a text of 1 to {LONGEST_NAME} characters, or a list of such")
    return names


def _run_ids(value: Any) -> list[str]:
    ids = [each.lower() for each in _names("run_id", value)]
    if not all(map(is_id, ids)):
        # Taken, it would match nothing, for ever and without a word.
        raise _refused("run_id", "must be the id of a run, a UUID, or a list of such")
    return ids


def _metadata(wanted: Any) -> dict[str, list[Any]]:
    if not isinstance(wanted, dict) or not 0 < len(wanted) <= MOST_VALUES:
        raise _refused("metadata", f"must be an object with 1 to {MOST_VALUES} members")
    return {name: _labels(name, value) for name, value in wanted.items()}


def _labels(name: str, value: Any) -> list[Any]:
    field = f"metadata.{name[:60]}"
    metadata = _listed(field, value)
    if not 0 < len(name) <= LONGEST_NAME:
        raise _refused(field, f"its name must have 1 to {LONGEST_NAME} characters")
    if not all(isinstance(label, str | int | float) and len(_text(label)) <= LONGEST_VALUE for label in metadata):
        raise _refused(
            field, f"must be a text of at most {LONGEST_VALUE} characters, a number or a boolean, or a list of such"
        )
    return metadata


def _listed(field: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MOST_VALUES:
        raise _refused(field, f"must name 1 to {MOST_VALUES} values")
    return values


def _refused(field: str, message: str) -> BadRequest:
    return BadRequest(message, param=f"filters.{field}")
