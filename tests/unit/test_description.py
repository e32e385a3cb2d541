"""The description of the API is of the routes that exist, is valid OpenAPI, and can be broken."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from models import DeliveryFormat
from receiver.api.description.deliveries import BODIES
from receiver.api.description.described import methods_of, operations_of
from receiver.api.description.document import build_document
from receiver.api.description.errors import CODES
from receiver.api.description.examples import EXAMPLES
from receiver.api.description.operations import OPERATIONS, TAGS
from receiver.api.endpoint import RouteEndpoint
from receiver.api.piapi_queries import HistoryQuery
from receiver.api.routes import routes
from receiver.domain.ids import new_id
from tests.fakes.described import DescribedApi, described

Json = Any
ROUTES = [route for route in routes() if isinstance(route, Route)]
OTHER_NAMES = {"page_size": {"size", "pageSize", "limit"}}
"""Names that PiAPI's clients give the same parameter of `HistoryQuery`."""


@cache
def document() -> dict[str, Json]:
    return described().document


def operations() -> Iterator[tuple[str, Json]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def endpoint_of(route: Route) -> RouteEndpoint | None:
    found = getattr(route.endpoint, "__self__", None)
    return found if isinstance(found, RouteEndpoint) else None


def named(operation: Json, place: str) -> set[str]:
    return {each["name"] for each in operation.get("parameters", ()) if each.get("in") == place}


def all_of(value: Json, name: str) -> Iterator[Json]:
    """Yield what every member called `name` is, however deep."""
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for member in value.values():
            yield from all_of(member, name)
    elif isinstance(value, list):
        for member in value:
            yield from all_of(member, name)


def test_every_route_is_described_and_every_description_is_of_a_route() -> None:
    served = {f"{method} {route.path}" for route in ROUTES for method in methods_of(route)}
    assert set(dict(operations())) == served
    assert set(OPERATIONS) == served
    assert len(operation_ids := [operation["operationId"] for _, operation in operations()]) == len(set(operation_ids))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_description_has_the_parameters_and_the_scope_of_its_route(route: Route) -> None:
    for method in methods_of(route):
        operation = document()["paths"][route.path][method.lower()]
        assert named(operation, "path") == set(re.findall(r"{(\w+)}", route.path))
        endpoint = endpoint_of(route)
        if endpoint is None:
            assert all(not scopes for each in operation["security"] for scopes in each.values())
            continue
        names = set(endpoint.query_names)
        others = OTHER_NAMES["page_size"] if endpoint.query is HistoryQuery else set()
        assert named(operation, "query") == names | others
        assert operation["security"] == [{"ApiKey": [endpoint.scope]}, {"Bearer": [endpoint.scope]}]


def schemas_read(function: Any, *, method: str) -> set[str]:
    """Return the names of the schemas with which a handler calls `call.body` or `call.query`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        ast.unparse(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"call.{method}"
    }


@pytest.mark.parametrize(
    "operation",
    [each for each in operations_of(routes()) if each.endpoint and not each.passes_on],
    ids=lambda each: each.operation.id,
)
def test_a_handler_reads_what_is_described(operation: Any) -> None:
    handler = operation.endpoint.handler
    if bodies := schemas_read(handler, method="body"):
        assert bodies == {operation.operation.body.__name__}
    else:
        assert operation.operation.body is None or operation.operation.id == "create_tasks"
    if queries := schemas_read(handler, method="query"):
        assert queries == {operation.query.__name__}


def test_the_document_is_valid_openapi() -> None:
    servers = [{"url": "http://127.0.0.1:8080"}]
    whole = orjson.loads(orjson.dumps({**document(), "servers": servers}))
    assert list(OpenAPIV31SpecValidator(whole).iter_errors()) == []


def test_a_document_that_is_wrong_is_found() -> None:
    wrong = orjson.loads(orjson.dumps(document()))
    wrong["paths"]["/api/v1/tasks"]["get"].pop("responses")
    wrong["info"].pop("title")
    assert list(OpenAPIV31SpecValidator(wrong).iter_errors())


def test_every_example_is_as_its_schema_says() -> None:
    by_id = {operation["operationId"]: operation for _, operation in operations()}
    for name, example in EXAMPLES.items():
        response = by_id[name]["responses"][str(example.status)]["content"]["application/json"]
        assert response["example"] == example.answer
        assert described().schema_faults(response["schema"], example.answer) == [], name
        if example.request is not None:
            request = by_id[name]["requestBody"]["content"]["application/json"]
            assert request["example"] == example.request
            assert described().schema_faults(request["schema"], example.request) == [], name
    main = {"create_tasks", "piapi_create_task", "get_task", "create_run", "create_webhook", "list_events"}
    assert main <= EXAMPLES.keys()


def test_every_operation_has_a_text_for_users() -> None:
    for name, operation in operations():
        assert operation["tags"][0] in TAGS, name
        assert 3 <= len(operation["summary"]) <= 90, name
        assert not operation["summary"].endswith("."), name
    texts = [text for text in all_of(document(), "description") if isinstance(text, str)]
    inside = [text for text in texts if re.search(r"receiver[./]|Raises|resumed|\bCall\b|(?<!-)\bNone\b", text)]
    assert inside == []


def test_every_error_code_is_described_and_every_described_one_exists() -> None:
    enums = [set(each) for each in all_of(document()["components"]["responses"], "enum")]
    assert set().union(*enums) - {"true"} == set(CODES) - {"not_found", "method_not_allowed"}


def test_every_format_of_deliveries_is_described() -> None:
    assert set(document()["webhooks"]) == {form.value for form in DeliveryFormat} == {form.value for form in BODIES}


def test_what_nobody_refers_to_is_no_component() -> None:
    used = {each.rpartition("/")[2] for each in all_of(document(), "$ref")}
    components = document()["components"]
    for kind in ("schemas", "responses", "parameters", "headers"):
        assert set(components[kind]) - used == set(), kind


KEY = {
    "object": "key",
    "id": new_id(),
    "name": "n",
    "scope": "read",
    "hint": "rb_",
    "rate_limit": None,
    "created_at": "2026-01-31T09:30:00.000000Z",
    "expires_at": None,
    "last_used_at": None,
}


def answer(data: Json = KEY, status: int = 200, content_type: str = "application/json") -> httpx.Response:
    body = {"id": "r", "object": "key", "status": "completed", "created_at": 1, "data": data}
    return httpx.Response(status, json=body, headers={"x-request-id": "r", "content-type": content_type})


def error(code: str, status: int, **more: Json) -> httpx.Response:
    detail = {"type": "invalid_request_error", "code": code, "message": "m", "request_id": "r", **more}
    return httpx.Response(status, json={"error": detail}, headers={"x-request-id": "r"})


def check(given: httpx.Response, path: str = f"/api/v1/keys/{new_id()}") -> None:
    described().check(httpx.Request("GET", f"http://127.0.0.1{path}"), given)


def test_an_answer_as_described_is_accepted() -> None:
    check(answer())
    check(error("key_not_found", 404, param="key_id"))
    check(error("not_found", 404), "/api/v1/nothing")
    check(answer(), f"//prefix/api/v1/keys/{new_id()}/")


@pytest.mark.parametrize(
    "given",
    [
        answer({**KEY, "colour": "red"}),
        answer({name: value for name, value in KEY.items() if name != "hint"}),
        answer({**KEY, "id": "not-a-uuid"}),
        answer({**KEY, "created_at": "2026-01-31T09:30:00Z"}),
        answer({**KEY, "scope": "owner"}),
        answer(status=201),
        answer(content_type="text/html"),
        error("run_not_found", 404),
        error("key_not_found", 400),
        error("key_not_found", 404, hint="h"),
        httpx.Response(200, json=answer().json()),
    ],
    ids=[
        "new field",
        "no field",
        "no id",
        "other time",
        "other word",
        "status",
        "type",
        "code",
        "code's status",
        "detail",
        "header",
    ],
)
def test_an_answer_that_is_not_as_described_is_found(given: httpx.Response) -> None:
    with pytest.raises(AssertionError):
        check(given)


def test_a_route_without_a_description_is_found() -> None:
    async def nothing(_call: Any) -> Any:
        """Do nothing."""

    with pytest.raises(KeyError):
        build_document([Route("/api/v1/new", nothing)])


def test_a_request_that_was_accepted_against_its_schema_is_found() -> None:
    request = httpx.Request("POST", "http://127.0.0.1/api/v1/keys", json={"name": "n", "scope": "owner"})
    with pytest.raises(AssertionError, match="the request was accepted"):
        described().check(request, answer({**KEY, "key": "k"}))


def test_a_delivery_that_is_not_as_described_is_found() -> None:
    api: DescribedApi = described()
    data = {"provider": "piapi", "seconds": 31.0, "until": "2026-01-31T09:30:00.000000Z"}
    body = {"type": "provider.paused", "timestamp": "2026-01-31T09:30:00.000000Z", "data": data}
    headers = {"webhook-id": "e", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    assert list(api.delivery_faults("standard", headers, body)) == []
    assert list(api.delivery_faults("standard", headers, {**body, "data": {**data, "more": 1}}))
    assert list(api.delivery_faults("standard", {**headers, "webhook-signature": "v9,AAAA"}, body))
    assert list(api.delivery_faults("standard", {"webhook-id": "e"}, body))
