"""The document as a whole."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from starlette.routing import BaseRoute

from receiver.api.description.deliveries import BODIES, webhooks_of
from receiver.api.description.described import DescribedOperation, operations_of
from receiver.api.description.errors import NativeError, PiapiError
from receiver.api.description.event_answers import StreamFrame
from receiver.api.description.examples import EXAMPLES
from receiver.api.description.forms import Other, PageOf, Plain
from receiver.api.description.model_schemas import JsonSchema, ModelSchemas
from receiver.api.description.operations import TAGS
from receiver.api.description.parameters import SHARED, parameters_of
from receiver.api.description.prose import OVERVIEW
from receiver.api.description.replicate_answers import Problem
from receiver.api.description.responses import Responses, header_components

OPENAPI = "3.1.0"
_JSON = "application/json"
_SECURITY: JsonSchema = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as a Bearer token."},
    "HookSecret": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Webhook-Secret",
        "description": "The secret of the task's webhook URL, or the one that is shared with the provider.",
    },
    "MetricsToken": {"type": "http", "scheme": "bearer", "description": "The token of `RINGBACK_METRICS_TOKEN`."},
}


def build_document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the description of these routes as OpenAPI 3.1, but for `servers`: the address is the reader's."""
    operations = list(operations_of(routes))
    schemas = ModelSchemas(_models(operations))
    responses = Responses(schemas)
    paths: dict[str, JsonSchema] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas, responses)
    queries = {each.query.__name__ for each in operations if each.query is not None}
    components = {name: schema for name, schema in schemas.components.items() if name not in queries}
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Ringback",
            "version": version("ringback"),
            "summary": "Knows when a generation task is done, and tells everyone who asked.",
            "description": OVERVIEW,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "webhooks": webhooks_of(schemas),
        "components": {
            "schemas": {**components, **responses.envelopes},
            "responses": responses.components,
            "parameters": SHARED,
            "headers": header_components(),
            "securitySchemes": _SECURITY,
        },
    }


def _models(operations: Sequence[DescribedOperation]) -> list[Any]:
    """Return all models that the document refers to, each once."""
    wanted: list[Any] = [NativeError, PiapiError, Problem, StreamFrame, *BODIES.values()]
    for each in operations:
        wanted += [_model(answer) for answer in each.operation.answers.values()]
        wanted += [_model(each.operation.body), each.query]
    return list(dict.fromkeys(each for each in wanted if each is not None))


def _model(answer: Any) -> Any:
    match answer:
        case PageOf(model, _) | Plain(model) | Other(_, _, model):
            return model
    return answer


def _operation(described: DescribedOperation, schemas: ModelSchemas, responses: Responses) -> JsonSchema:
    operation = described.operation
    shown: JsonSchema = {"operationId": operation.id, "tags": [operation.tag], "summary": described.summary}
    if described.description not in ("", f"{described.summary}."):
        shown["description"] = described.description
    shown["security"] = _security(described)
    if parameters := parameters_of(described, schemas):
        shown["parameters"] = parameters
    if operation.body is not None:
        shown["requestBody"] = _request_body(described, schemas)
    shown["responses"] = responses.of(described)
    _add_examples(shown, operation.id)
    return shown


def _security(described: DescribedOperation) -> list[JsonSchema]:
    """Return what lets a request in, with the scope that a key needs."""
    if described.scope is not None:
        return [{"ApiKey": [described.scope.value]}, {"Bearer": [described.scope.value]}]
    if described.path.startswith("/hooks/"):
        return [{"HookSecret": []}]
    return [{}, {"MetricsToken": []}] if described.path == "/metrics" else []


def _request_body(described: DescribedOperation, schemas: ModelSchemas) -> JsonSchema:
    operation, body = described.operation, described.operation.body
    if isinstance(body, Other):
        schema = {} if body.schema is None else {"schema": schemas.of(body.schema)}
        return {"description": body.description, "required": True, "content": dict.fromkeys(body.media_types, schema)}
    return {"required": not operation.body_is_optional, "content": {_JSON: {"schema": schemas.of(body)}}}


def _add_examples(shown: JsonSchema, operation_id: str) -> None:
    example = EXAMPLES.get(operation_id)
    if example is None:
        return
    if example.request is not None:
        shown["requestBody"]["content"][_JSON]["example"] = example.request
    shown["responses"][str(example.status)]["content"][_JSON]["example"] = example.answer
