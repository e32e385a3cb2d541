"""Makes the requests of the calls that a provider's file describes."""

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from receiver.providers.api import CannotAsk, Request
from receiver.providers.base import ProviderTask
from receiver.providers.declared.file_form import CallTable, RequestPlace, TextForm
from receiver.providers.multipart import parts_of


def check_form(name: str, value: str, form: TextForm | None) -> None:
    """Raise `CannotAsk` for a text that has not the form which the file asks for."""
    if form is not None and form.form.fullmatch(value) is None:
        raise CannotAsk(f"{name} must be as in {form.such_as}, not {value[:100]!r}")


def request_of(call: CallTable, values: Mapping[str, str], context: Mapping[str, Any] | None = None) -> Request:
    """Return a request. `values` fill its texts, and its body is found in `context`, else in them.

    Raises `CannotAsk`.
    """
    return Request(
        method=call.method,
        url=call.path.as_path(values),
        params={name: text.filled(values) for name, text in call.query.items()},
        headers={name.lower(): text.as_header(values) for name, text in call.headers.items()},
        body=None if call.body is None else call.body.of(context or values),
    )


def with_value(request: Request, place: RequestPlace, value: str) -> Request:
    """Return the request with a value at a place."""
    params, headers, body = dict(request.params), dict(request.headers), request.body
    match place.where:
        case "query":
            params[place.name] = value
        case "header":
            headers[place.name.lower()] = value
        case "body":
            body = _put(copy.copy(body), place.name.split("."), value)
    return replace(request, params=params, headers=headers, body=body)


def _put(body: Any, path: list[str], value: str) -> dict[str, Any]:
    """Return the body with a value at a path. Objects on the way are copied: they may be the client's own."""
    held = dict(body) if isinstance(body, dict) else {}
    held[path[0]] = value if len(path) == 1 else _put(held.get(path[0]), path[1:], value)
    return held


def as_form(request: Request) -> Request:
    """Return the request with its body as a form. Raises `CannotAsk`."""
    if not isinstance(request.body, dict):
        raise CannotAsk("the body of a form must be an object, whose fields are its parts")
    return replace(request, body=None, parts=parts_of(request.body))


def task_values(task: ProviderTask) -> dict[str, str]:
    """Return what fills the texts of a call about a task."""
    return {"id": task.id, "model": task.model, "task_type": task.task_type}


def moment_values(name: str, moment: datetime) -> dict[str, str]:
    """Return a moment in both its forms; `datetime.max` is none."""
    seconds = "" if moment == datetime.max else str(int(moment.timestamp()))
    return {name: "" if moment == datetime.max else moment.isoformat(), f"{name}_seconds": seconds}
