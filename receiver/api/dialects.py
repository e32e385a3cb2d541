"""The two forms of answers and errors: PiAPI's, and Pi's envelope for all else. Errors become HTTP here alone."""

import time
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.responses import Response

from receiver.errors import EventsLost, ProviderRefused, RingbackError


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answers, before a dialect gives it its form.

    `object` names the kind of resource; `message` is PiAPI's.
    """

    data: Any
    object: str = "task"
    status: int = 200
    message: str = "success"


class Dialect(Protocol):
    """A form for answers and errors."""

    def reply(self, reply: Reply, request_id: str) -> Response:
        """Return the answer in this form."""
        ...

    def error(self, error: RingbackError, request_id: str) -> Response:
        """Return the error in this form."""
        ...


class _PiAPI:
    """`{"code", "data", "message"}` (contracts/piapi.md)."""

    def reply(self, reply: Reply, request_id: str) -> Response:
        body = {"code": reply.status, "data": reply.data, "message": reply.message}
        return _json(body, reply.status, request_id)

    def error(self, error: RingbackError, request_id: str) -> Response:
        if isinstance(error, ProviderRefused) and error.body is not None:
            return _json(error.body, error.status, request_id)
        body = {"code": error.status, "data": None, "message": _named(error)}
        return _json(body, error.status, request_id, _retry_after(error))


class _Pi:
    """Pi's envelope (contracts/pi.md): the resource's own state is in `data`."""

    def reply(self, reply: Reply, request_id: str) -> Response:
        body = {
            "id": request_id,
            "object": reply.object,
            "status": "queued" if reply.status == 202 else "completed",
            "created_at": int(time.time()),
            "data": reply.data,
        }
        return _json(body, reply.status, request_id)

    def error(self, error: RingbackError, request_id: str) -> Response:
        detail: dict[str, Any] = {
            "type": error.kind,
            "code": error.code,
            "message": error.message,
            "request_id": request_id,
        }
        if error.param is not None:
            detail["param"] = error.param
        if error.issues:
            detail["issues"] = error.issues
        if isinstance(error, EventsLost):
            detail["oldest_id"] = None if error.oldest is None else str(error.oldest)
        if error.retry_after is not None:
            detail["retry_after"] = error.retry_after
        return _json({"error": detail}, error.status, request_id, _retry_after(error))


PIAPI: Dialect = _PiAPI()
NATIVE: Dialect = _Pi()
_PIAPI_PATHS = ("/api/v1/task/", "/account/", "/api/open/", "/hooks/")


def dialect_of(path: str) -> Dialect:
    """Return the dialect of a path that no endpoint serves."""
    return PIAPI if f"{path}/".startswith(_PIAPI_PATHS) else NATIVE


def new_request_id() -> str:
    """Return an id for a request, in Pi's form."""
    return f"req_pi_{uuid.uuid4()}"


def _named(error: RingbackError) -> str:
    return f"{error.param}: {error.message}" if error.param else error.message


def _retry_after(error: RingbackError) -> dict[str, str]:
    return {} if error.retry_after is None else {"retry-after": str(error.retry_after)}


def _json(body: Any, status: int, request_id: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(body),
        status,
        headers={"x-request-id": request_id, **(headers or {})},
        media_type="application/json",
    )
