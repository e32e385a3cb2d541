"""The forms of responses and errors: PiAPI's and Replicate's for their paths, and Pi's envelope for all others.

This is the only place where errors are turned into HTTP responses.
"""

from http import HTTPStatus
from typing import Any, Protocol

import orjson
from msgspec import Struct
from starlette.responses import Response

from receiver.clock import wall_now
from receiver.errors import EventsLost, LimitReached, ProviderRefused, RingbackError


class Reply(Struct, frozen=True):
    """What an endpoint returns, before a dialect turns it into a response.

    `object` names the kind of resource, for Pi's envelope; `message` is for PiAPI's.
    """

    data: Any
    object: str = "task"
    status: int = 200
    message: str = "success"


class Dialect(Protocol):
    """A form of responses and errors.

    `ignores_unknown_queries`: whether a query parameter that a path does not know is ignored, not refused.
    """

    ignores_unknown_queries: bool

    def reply(self, reply: Reply, request_id: str) -> Response:
        """Return the response in this form."""
        ...

    def error(self, error: RingbackError, request_id: str) -> Response:
        """Return the error in this form."""
        ...


class PassingRefusal(Response):
    """A refusal that is not kept for repetitions of the request: the client may have mended its cause by then."""


class _PiAPI:
    """`{"code", "data", "message"}` (`receiver/providers/piapi/CONTRACT.md`, "Create")."""

    ignores_unknown_queries = True  # its clients may send what only PiAPI knows

    def reply(self, reply: Reply, request_id: str) -> Response:
        body = {"code": reply.status, "data": reply.data, "message": reply.message}
        return _json(body, reply.status, request_id)

    def error(self, error: RingbackError, request_id: str) -> Response:
        if isinstance(error, ProviderRefused) and error.body is not None:
            return _json(bounded_refusal(error.body, error.status, error.message), error.status, request_id)
        body = {"code": error.status, "data": None, "message": shortened(_message_with_param(error))}
        return _json(body, error.status, request_id, _retry_after(error), _kind_of(error))


class _Native:
    """Pi's envelope (`receiver/api/CONTRACTS.md`, "Pi"): the resource's own state is in `data`."""

    ignores_unknown_queries = False

    def reply(self, reply: Reply, request_id: str) -> Response:
        body = {
            "id": request_id,
            "object": reply.object,
            "status": "queued" if reply.status == 202 else "completed",
            "created_at": int(wall_now().timestamp()),
            "data": reply.data,
        }
        return _json(body, reply.status, request_id)

    def error(self, error: RingbackError, request_id: str) -> Response:
        detail = {**error_object(error), "request_id": request_id}
        if isinstance(error, EventsLost):
            detail["oldest_id"] = None if error.oldest is None else str(error.oldest)
        if error.retry_after is not None:
            detail["retry_after"] = error.retry_after
        return _json({"error": detail}, error.status, request_id, _retry_after(error), _kind_of(error))


class _Replicate:
    """The resource as it is; an error is a problem (`receiver/api/CONTRACTS.md`, "Replicate")."""

    ignores_unknown_queries = True  # its clients may send what only Replicate knows

    def reply(self, reply: Reply, request_id: str) -> Response:
        return _json(reply.data, reply.status, request_id)

    def error(self, error: RingbackError, request_id: str) -> Response:
        status = 422 if error.status == 400 else error.status  # Replicate's for a request that is wrong in itself
        if isinstance(error, ProviderRefused) and error.body is not None and _is_problem(error.body):
            problem = bounded_problem(error.body, status, error.message)
        else:
            detail = shortened(_message_with_param(error))
            problem = {"title": _title(status), "detail": detail, "status": status, "code": error.code}
        if error.retry_after is not None:
            problem = {**problem, "retry_after": error.retry_after}
        headers = _retry_after(error) | ({} if status in _REPEATABLE else {SHOULD_RETRY: "false"})
        return _json(problem, status, request_id, headers, _kind_of(error), PROBLEM)


PIAPI: Dialect = _PiAPI()
"""The dialect of the paths that PiAPI's clients use."""
NATIVE: Dialect = _Native()
"""The dialect of all other paths."""
REPLICATE: Dialect = _Replicate()
"""The dialect of the paths that Replicate's clients use."""
PROBLEM = "application/problem+json"
SHOULD_RETRY = "x-should-retry"
"""With `false` version 2 of Replicate's client sends a request once; else it repeats a POST after 409 and any 5xx, and
what had been done is paid for twice."""
_REPEATABLE = (429, 503)
"""With these nothing of the request was stored."""
LONGEST_MESSAGE, LONGEST_PARAM = 10_000, 300
"""Characters."""
LARGEST_REFUSAL = 64 * 1024
"""Bytes of a provider's refusal that are passed on unchanged."""
_PIAPI_PATHS = ("/api/v1/task/", "/account/", "/api/open/", "/api/ephemeral_resource/", "/hooks/")
_REPLICATE_PATHS = tuple(
    f"/v1/{name}/"
    for name in [
        "account",
        "collections",
        "deployments",
        "files",
        "hardware",
        "models",
        "predictions",
        "trainings",
        "webhooks",
    ]
)
_TITLES = {401: "Unauthenticated", 402: "Insufficient credit", 422: "Input validation failed"}
"""Replicate's own words, where they are not those of HTTP."""
_WRONG_ADDRESSES = {
    "/v1/v1/": "there is nothing at this path: it has /v1 twice, so give the client the address without /v1",
    "/predictions/": "there is nothing at this path: give the client the address with /v1 at its end",
    "/models/": "there is nothing at this path: give the client the address with /v1 at its end",
}
"""Where Replicate's clients come that have another version's address, and what they are told."""
_NO_FILES = (
    "there is nothing at this path: files are not kept here; give their URLs in input, or the files themselves as data "
    'URLs (file_encoding_strategy="base64" of run, models.predictions.create and predictions.create(version=...))'
)
_NOT_OF_REPLICATE = (
    "there is nothing at this path: of Replicate's API there are predictions, account, webhooks.default.secret and the "
    "versions of models; what a model or a deployment is like is not known here"
)


def dialect_of(path: str) -> Dialect:
    """Return the dialect for an error about a path that no endpoint serves."""
    if f"{path}/".startswith((*_REPLICATE_PATHS, *_WRONG_ADDRESSES)):
        return REPLICATE
    return PIAPI if f"{path}/".startswith(_PIAPI_PATHS) else NATIVE


def nothing_at(path: str) -> str:
    """Return what to say of a path that no endpoint serves."""
    whole = f"{path}/"
    for start, words in _WRONG_ADDRESSES.items():
        if whole.startswith(start):
            return words
    if whole.startswith("/v1/files/"):
        return _NO_FILES
    return _NOT_OF_REPLICATE if whole.startswith(_REPLICATE_PATHS) else "there is nothing at this path"


def error_object(error: RingbackError) -> dict[str, Any]:
    """Return an error in Pi's form, as a response has it, but for the id of the request."""
    detail: dict[str, Any] = {"type": error.kind, "code": error.code, "message": shortened(error.message)}
    if error.param is not None:
        detail["param"] = shortened(error.param, LONGEST_PARAM)
    if error.issues:
        detail["issues"] = error.issues
    return detail


def shortened(text: str, most: int = LONGEST_MESSAGE) -> str:
    """Return a text of bounded length: it may repeat what the client sent."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def bounded_refusal(body: dict[str, Any], status: int, message: str) -> dict[str, Any]:
    """Return the body of a provider's refusal; of one that is too large its code and the start of its message.

    `message` stands where the body has none.
    """
    if len(orjson.dumps(body)) <= LARGEST_REFUSAL:
        return body
    code, words = body.get("code"), body.get("message")
    return {
        "code": code if isinstance(code, int) else status,
        "data": None,
        "message": shortened(words if isinstance(words, str) else message),
    }


def bounded_problem(body: dict[str, Any], status: int, message: str) -> dict[str, Any]:
    """Return a provider's problem, with the status that it is answered with; of one too large the main members."""
    if len(orjson.dumps(body)) <= LARGEST_REFUSAL:
        return {"title": _title(status), **body, "status": status}
    return {"title": shortened(str(body.get("title"))), "detail": shortened(message), "status": status}


def _is_problem(body: dict[str, Any]) -> bool:
    """Return whether a refusal has Replicate's own form; some of its problems have no title."""
    return isinstance(body.get("detail"), str) and isinstance(body.get("title", ""), str)


def _title(status: int) -> str:
    """Return the words for a status; a provider's own may be one that HTTP does not know."""
    if status in _TITLES:
        return _TITLES[status]
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Refused"


def _message_with_param(error: RingbackError) -> str:
    """Return the message, beginning with the field that is wrong; that of a schema begins so already."""
    start = f"{error.param}: "
    return error.message if error.param is None or error.message.startswith(start) else start + error.message


def _retry_after(error: RingbackError) -> dict[str, str]:
    return {} if error.retry_after is None else {"retry-after": str(error.retry_after)}


def _kind_of(error: RingbackError) -> type[Response]:
    return PassingRefusal if isinstance(error, LimitReached) else Response


def _json(
    body: Any,
    status: int,
    request_id: str,
    headers: dict[str, str] | None = None,
    kind: type[Response] = Response,
    media_type: str = "application/json",
) -> Response:
    return kind(
        orjson.dumps(body),
        status,
        headers={"x-request-id": request_id, **(headers or {})},
        media_type=media_type,
    )
