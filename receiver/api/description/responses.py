"""The responses of operations: answers in their envelope, and errors with the codes that they may have."""

from collections.abc import Iterator, Mapping
from typing import Any

from receiver.api.description.described import DescribedOperation
from receiver.api.description.errors import CODES, NativeError, PiapiError
from receiver.api.description.event_answers import StreamFrame
from receiver.api.description.forms import Free, Other, PageOf, Plain
from receiver.api.description.model_schemas import COMPONENTS, JsonSchema, ModelSchemas, component_name
from receiver.api.description.refusals import by_status, codes_of
from receiver.api.description.replicate_answers import Problem
from receiver.api.dialects import PROBLEM

_JSON = "application/json"
_TITLES: Mapping[int, str] = {
    400: "The request is wrong in itself.",
    401: "The request has no valid API key.",
    403: "The key does not allow this.",
    404: "There is no such thing, or it belongs to another organization.",
    409: "The state of things does not allow this.",
    413: "The body is too large.",
    422: "The request is wrong in itself.",
    415: "The body has a content encoding that is not understood.",
    429: "Too much at present: try again after `Retry-After` seconds.",
    500: "A fault of the service.",
    502: "The provider cannot be used.",
    503: "Not possible at present, and nothing was stored: try again after `Retry-After` seconds.",
    504: "It is not known whether the request was done.",
}
HEADERS: Mapping[str, JsonSchema] = {
    "X-Request-Id": {"description": "The id of the request, as logs have it.", "schema": {"type": "string"}},
    "X-RateLimit-Limit": {"description": "How many requests the key may make at once.", "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"description": "How many may follow now.", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {
        "description": "The unix second in which the key may make all of them again.",
        "schema": {"type": "integer"},
    },
    "Retry-After": {
        "description": "After how many seconds the same request may succeed.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-Should-Retry": {
        "description": "Replicate's client sends the same request once, and not again by itself.",
        "schema": {"enum": ["false"]},
    },
    "X-Idempotency-Replayed": {
        "description": "The answer is that to an earlier request with the same `Idempotency-Key`.",
        "schema": {"enum": ["true"]},
    },
}
"""The headers of responses that are components."""
_REQUIRED = frozenset({"X-Request-Id", "Retry-After"})
_LIMITS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class Responses:
    """Makes the responses of operations; `components` are those that several have."""

    def __init__(self, schemas: ModelSchemas) -> None:
        self._schemas = schemas
        self.envelopes: dict[str, JsonSchema] = {}
        """The components of the answers in their envelopes."""
        self.components: dict[str, JsonSchema] = {}
        self._used: dict[str, str] = {}

    def of(self, described: DescribedOperation) -> dict[str, JsonSchema]:
        """Return the responses of an operation by their statuses."""
        found = {
            str(status): self._answer(described, status, each) for status, each in described.operation.answers.items()
        }
        if described.endpoint is None:
            return found
        codes = codes_of(
            described.method if described.changes else "GET", described.path, described.query, described.operation
        )
        for status, named in by_status(codes).items():
            shown = 422 if described.is_replicate and status == 400 else status
            found[str(shown)] = self._shared(shown, self._error(described, shown, named))
        if described.operation.may_refuse:
            found["4XX"] = self._refusal(described)
        if described.passes_on:
            found["default"] = {
                "description": "The provider's own answer, with its own status.",
                "headers": _headers(described, 200),
                "content": {"*/*": {}},
            }
        return dict(sorted(found.items()))

    def _answer(self, described: DescribedOperation, status: int, answer: Any) -> JsonSchema:
        content = dict(self._content(described, status, answer))
        response: JsonSchema = {"description": self._title(described, status, answer)}
        response["headers"] = _headers(described, status)
        return response | ({"content": content} if content else {})

    def _content(self, described: DescribedOperation, status: int, answer: Any) -> Iterator[tuple[str, JsonSchema]]:
        match answer:
            case Other(media_types, _, model):
                schema = {} if model is None else {"schema": self._schemas.of(model)}
                yield from ((each, schema) for each in media_types)
            case Plain(model):
                yield _JSON, {"schema": self._schemas.of(model)}
            case _:
                yield _JSON, {"schema": self._enveloped(described, status, answer)}
        if described.operation.id == "list_events":
            yield "text/event-stream", {"schema": {"type": "string"}, "x-frame": self._schemas.of(StreamFrame)}

    def _enveloped(self, described: DescribedOperation, status: int, answer: Any) -> JsonSchema:
        if described.is_piapi or described.endpoint is None:
            data = {"type": "null"} if answer is None else self._schemas.of(answer)
            return _closed({"code": {"const": status}, "data": data, "message": {"type": "string"}})
        name, data, kind = self._data(answer)
        component = name if isinstance(answer, PageOf) else f"{name}{'Accepted' if status == 202 else 'Answer'}"
        self.envelopes[component] = _closed(
            {
                "id": {"type": "string", "description": "The id of the request."},
                "object": kind,
                "status": {"const": "queued" if status == 202 else "completed"},
                "created_at": {"type": "integer", "description": "When it was answered, in unix seconds."},
                "data": data,
            }
        )
        return {"$ref": f"{COMPONENTS}{component}"}

    def _data(self, answer: Any) -> tuple[str, JsonSchema, JsonSchema]:
        """Return the name of an answer, the schema of its data, and that of the envelope's `object`."""
        if isinstance(answer, PageOf):
            page = _closed(
                {
                    "object": {"const": "list"},
                    "data": {"type": "array", "items": self._schemas.of(answer.item)},
                    "has_more": {"type": "boolean", "description": "Whether another page follows."},
                    "next_cursor": {"type": ["string", "null"], "description": "The `cursor` of the next page."},
                }
            )
            page["properties"] |= answer.more
            return f"{component_name(answer.item.__name__)}Page", page, {"const": "list"}
        kind = self._schemas.fields_of(answer)["properties"]["object"]
        return component_name(answer.__name__), self._schemas.of(answer), {"const": kind["const"]}

    def _title(self, described: DescribedOperation, status: int, answer: Any) -> str:
        match answer:
            case Other(_, description, _):
                return description
            case PageOf(item):
                return f"A page of: {str(item.__doc__).splitlines()[0]}"
            case Plain(model) if status < 400 or described.operation.tag == "Operating":
                return str(model.__doc__).splitlines()[0]
            case type(__doc__=str(text)) if answer is not Free:
                return text.splitlines()[0]
        return _TITLES.get(status, "Done.")

    def _error(self, described: DescribedOperation, status: int, codes: list[str]) -> JsonSchema:
        listed = "\n".join(f"- `{code}`: {CODES[code].meaning}" for code in codes)
        return {
            "description": f"{_TITLES[status]}\n\n{listed}",
            "headers": _headers(described, status),
            "content": {_media_type(described): {"schema": self._error_schema(described, status, codes)}},
        }

    def _error_schema(self, described: DescribedOperation, status: int, codes: list[str]) -> JsonSchema:
        if described.is_replicate:
            return {"allOf": [self._schemas.of(Problem), {"properties": {"status": {"const": status}}}]}
        if described.is_piapi:
            plain = {"allOf": [self._schemas.of(PiapiError), {"properties": {"code": {"const": status}}}]}
            return plain if not _is_passed_on(described, status) else {"anyOf": [plain, {"type": "object"}]}
        known = [*codes, *(["provider_refused"] if described.operation.may_refuse and 400 <= status < 500 else ())]
        narrowed = {"properties": {"error": {"properties": {"code": {"enum": known}}}}}
        error = {"allOf": [self._schemas.of(NativeError), narrowed]}
        return error if not (described.passes_on and status != 401) else {"anyOf": [error, {}]}

    def _refusal(self, described: DescribedOperation) -> JsonSchema:
        if described.is_replicate:
            schema = self._schemas.of(Problem)
        else:
            schema = {"type": "object"} if described.is_piapi else self._error_schema(described, 400, [])
        text = "The provider refused it for good: its own status"
        words = "detail" if described.is_replicate else "message"
        return {
            "description": f"{text} and body." if described.is_piapi else f"{text}, with its words in `{words}`.",
            "headers": _headers(described, 400),
            "content": {_media_type(described): {"schema": {} if described.passes_on else schema}},
        }

    def _shared(self, status: int, response: JsonSchema) -> JsonSchema:
        """Return a reference to a response, which most operations have alike."""
        key = repr(response)
        if key not in self._used:
            same = sum(name.startswith(f"Error{status}") for name in self.components)
            name = f"Error{status}" if not same else f"Error{status}_{same + 1}"
            self.components[name] = response
            self._used[key] = name
        return {"$ref": f"#/components/responses/{self._used[key]}"}


def _media_type(described: DescribedOperation) -> str:
    """Return the content type of an error."""
    return PROBLEM if described.is_replicate else _JSON


def _is_passed_on(described: DescribedOperation, status: int) -> bool:
    """Return whether an error in PiAPI's form may be the provider's own body."""
    return described.operation.may_refuse and (status < 500 or status == 502) and status != 401


def _headers(described: DescribedOperation, status: int) -> dict[str, JsonSchema]:
    names = ["X-Request-Id"]
    if described.endpoint is not None and status != 401:
        names += _LIMITS
    if status in (429, 503) and not described.passes_on:  # of the provider's own there may be none
        names.append("Retry-After")
    elif described.is_replicate and status >= 400:
        names.append("X-Should-Retry")
    if described.takes_idempotency_key and status < 500 and status not in (401, 403, 429):
        names.append("X-Idempotency-Replayed")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _closed(properties: JsonSchema) -> JsonSchema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def header_components() -> dict[str, JsonSchema]:
    """Return the components of `HEADERS`."""
    return {name: {**header, **({"required": True} if name in _REQUIRED else {})} for name, header in HEADERS.items()}
