"""A client of the API that checks each answer against the description of the API (`/openapi.json`).

So no test can see an answer with a status, a field or an error code that the description does not have, and none lacks
a field that it promises.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import httpx
import orjson
from jsonschema_rs import Draft202012Validator

from receiver.api.description.document import build_document
from receiver.api.paths import normal_path
from receiver.api.routes import routes
from receiver.providers.registry import provider_names
from tests.fakes.subscriber import ReceivedDelivery

Json = Any
ANSWERED_BY = "x-answered-by"
"""The header of an answer that is not the service's, but of what stands before it in a test."""
_BEFORE_A_REQUEST_IS_COMPLETE = (400, 408, 414, 431, 503)
_CHECKED_ONE_BY_ONE = "create_tasks"
"""The operation whose items are refused one by one: its body is accepted whatever they are."""
_MOST_FAULTS = 3
_LONGEST_CHECKED = 1024 * 1024
"""Bytes of a delivery: larger ones differ in a text alone, and would take long."""


class DescribedClient(httpx.AsyncClient):
    """A client that fails with an `AssertionError` for an answer which is not as the description says."""

    async def send(self, request: httpx.Request, *, stream: bool = False, **given: Any) -> httpx.Response:
        answer = await super().send(request, stream=stream, **given)
        if not stream and ANSWERED_BY not in answer.headers:
            described().check(request, answer)
        return answer


def check_deliveries(received: Iterable[ReceivedDelivery]) -> None:
    """Raise `AssertionError` for the first delivery that is not as the description says."""
    for each in received:
        if "webhook-id" in each.headers and len(each.body) <= _LONGEST_CHECKED:
            form = _format_of(each.headers, each.json)
            faults = list(described().delivery_faults(form, each.headers, each.json))
            assert not faults, f"a delivery in the format {form}: {faults}\n{each.headers}\n{each.body[:2000]!r}"


def described() -> "DescribedApi":
    """Return the description of the API, made once a process for the providers that it has."""
    return _described(provider_names())


@cache
def _described(_providers: tuple[str, ...]) -> "DescribedApi":
    return DescribedApi(build_document(routes()))


class DescribedApi:
    """Checks requests and answers against the document."""

    def __init__(self, document: dict[str, Json]) -> None:
        self.document = document
        self._patterns: list[tuple[re.Pattern[str], str]] = [
            (_pattern(path), path) for path in sorted(document["paths"], key=lambda path: "{" in path)
        ]
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, request: httpx.Request, answer: httpx.Response) -> None:
        """Raise `AssertionError` that says what is wrong with an answer, or with a request that was accepted."""
        path = self.path_of(request.url.raw_path.partition(b"?")[0])
        faults = list(self.faults(request.method, path, answer.status_code, answer.headers, answer.content))
        if answer.status_code < 300 and path is not None:
            faults += self._request_faults(request, path)
        assert not faults, f"{request.method} {request.url} -> {answer.status_code}: {faults}\n{answer.text[:2000]}"

    def path_of(self, raw: bytes) -> str | None:
        """Return the path of the document that a request is for; prefixes of a proxy are left out."""
        segments = normal_path(raw).split("/")
        for start in range(1, len(segments)):
            path = "/" + "/".join(segments[start:])
            for pattern, found in self._patterns:
                if pattern.fullmatch(path):
                    return found
        return None

    def faults(
        self, method: str, path: str | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> Iterator[str]:
        """Yield what is wrong with an answer."""
        media_type = headers.get("content-type", "").partition(";")[0]
        if method == "HEAD" or (media_type == "text/plain" and status in _BEFORE_A_REQUEST_IS_COMPLETE):
            return
        operation = self.document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            if status not in (404, 405, 500):
                yield "there is no such operation"
            return
        response = self._response(operation, status)
        if response is None:
            yield f"the operation {operation['operationId']} has no status {status}"
            return
        yield from self._header_faults(response, headers)
        yield from self._content_faults(operation["operationId"], status, response, media_type, body)

    def delivery_faults(self, form: str, headers: Mapping[str, str], body: Json) -> Iterator[str]:
        """Yield what is wrong with a delivery in this format."""
        operation = self.document["webhooks"][form]["post"]
        for parameter in operation["parameters"]:
            given = headers.get(parameter["name"])
            if given is None:
                if parameter["required"]:
                    yield f"the header {parameter['name']} is missing"
            else:
                yield from self._schema_faults(f"{form} {parameter['name']}", parameter["schema"], given)
        (media,) = operation["requestBody"]["content"].values()
        yield from self._schema_faults(form, media["schema"], body)

    def schema_faults(self, schema: Json, value: Json) -> list[str]:
        """Return what is wrong with a value by a schema of the document."""
        return list(self._schema_faults(orjson.dumps(schema).decode(), schema, value))

    def _response(self, operation: Json, status: int) -> Json | None:
        for name in (str(status), f"{status // 100}XX", "default"):
            if name in operation["responses"]:
                return self._resolved(operation["responses"][name])
        return None

    def _header_faults(self, response: Json, headers: Mapping[str, str]) -> Iterator[str]:
        for name, header in response.get("headers", {}).items():
            if self._resolved(header).get("required") and name.lower() not in headers:
                yield f"the header {name} is missing"

    def _content_faults(
        self, operation_id: str, status: int, response: Json, media_type: str, body: bytes
    ) -> Iterator[str]:
        content = response.get("content", {})
        media = next((each for name, each in content.items() if _covers(name, media_type)), None)
        if media is None:
            if content or body:
                yield f"the content type is {media_type!r}, and not one of {list(content)}"
        elif "schema" in media and media_type in ("application/json", "application/problem+json"):
            yield from self._schema_faults(f"{operation_id} {status}", media["schema"], orjson.loads(body))

    def _request_faults(self, request: httpx.Request, path: str) -> Iterator[str]:
        operation = self.document["paths"].get(path, {}).get(request.method.lower(), {})
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or operation["operationId"] == _CHECKED_ONE_BY_ONE:
            return
        try:
            body = orjson.loads(request.content)
        except (orjson.JSONDecodeError, httpx.RequestNotRead):
            return  # in another encoding
        for fault in self._schema_faults(f"{operation['operationId']} request", content["schema"], body):
            yield f"the request was accepted: {fault}"

    def _schema_faults(self, key: str, schema: Json, value: Json) -> Iterator[str]:
        if key not in self._validators:
            whole = {"allOf": [schema], "components": self.document["components"]}
            self._validators[key] = Draft202012Validator(whole, validate_formats=True)
        validator = self._validators[key]
        if not validator.is_valid(value):
            for error, _ in zip(validator.iter_errors(value), range(_MOST_FAULTS), strict=False):
                where = "/".join(map(str, error.instance_path))
                yield f"{where}: {error.message[:300]}"

    def _resolved(self, value: Json) -> Json:
        while "$ref" in value:
            found = self.document
            for name in value["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            value = found
        return value


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"{\w+}", path)
    return re.compile("[^/]+".join(map(re.escape, parts)))


def _format_of(headers: Mapping[str, str], body: Json) -> str:
    if headers.get("content-type", "").startswith("application/cloudevents"):
        return "cloudevents"
    if "x-pi-event" in headers:
        return "pi"
    if "webhook-signature" not in headers:
        return "piapi"
    return "replicate" if isinstance(body, dict) and "urls" in body else "standard"


def _covers(media_range: str, media_type: str) -> bool:
    kind, _, subtype = media_range.partition("/")
    given_kind, _, given_subtype = media_type.partition("/")
    return kind in ("*", given_kind) and subtype in ("*", given_subtype)
