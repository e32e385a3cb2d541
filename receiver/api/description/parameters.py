"""The parameters of operations: in the path, in the query, and headers."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel

from receiver.api.description.described import DescribedOperation
from receiver.api.description.model_schemas import JsonSchema, ModelSchemas
from receiver.providers.registry import provider_names
from receiver.telemetry.trace_context import TRACEPARENT

_UUID: JsonSchema = {"type": "string", "format": "uuid"}
_IN_PATHS: Mapping[str, tuple[JsonSchema, str]] = {
    "task_id": ({"type": "string", "minLength": 1}, "Ringback's id of the task, or the provider's."),
    "owner": ({"type": "string", "minLength": 1}, "The model's owner, after `provider:` where that is not Replicate."),
    "name": ({"type": "string", "minLength": 1}, "The model's name; `@` and a task type may follow."),
    "version_id": ({"type": "string", "minLength": 1}, "The id of the version."),
    "account": ({"type": "string", "minLength": 1}, "The name of the account, or its id."),
    "token": ({"type": "string"}, "The secret of the task, which its provider was given in the URL."),
}
IDEMPOTENCY_KEY: JsonSchema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same body is answered with the first answer for 24 hours, and the work is "
    "done once. With another body it is 409 `idempotency_key_mismatch`.",
    "schema": {"type": "string", "pattern": r"^[\x20-\x7e]{1,255}$"},
    "example": "order-4711",
}
_TRACEPARENT: JsonSchema = {
    "name": TRACEPARENT,
    "in": "header",
    "description": "W3C Trace Context: the trace that what is created belongs to. An invalid one is ignored.",
    "schema": {"type": "string"},
}
_LAST_EVENT_ID: JsonSchema = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `sequence` of the last event that was read: what follows it is answered, oldest first.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
}
_PREFER: JsonSchema = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait` or `wait=n`: answer when it has ended, or after n seconds, 55 at most.",
    "schema": {"type": "string"},
    "example": "wait=30",
}
SHARED = {
    "IdempotencyKey": IDEMPOTENCY_KEY,
    "Traceparent": _TRACEPARENT,
    "LastEventId": _LAST_EVENT_ID,
    "Prefer": _PREFER,
}
"""The parameters that are components."""


def parameters_of(described: DescribedOperation, schemas: ModelSchemas) -> list[JsonSchema]:
    """Return the parameters of an operation."""
    return [
        *(_in_path(name, described) for name in described.path_parameters),
        *(_in_query(described.query, schemas) if described.query is not None else ()),
        *_headers(described),
    ]


def _in_path(name: str, described: DescribedOperation) -> JsonSchema:
    schema, text = _IN_PATHS.get(name, (_UUID, f"The id of the {name.removesuffix('_id')}."))
    if name == "provider":
        schema, text = {"enum": list(provider_names())}, "The name of the provider."
    if described.endpoint is None and name == "task_id":
        schema, text = _UUID, "Ringback's id of the task."
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _in_query(query: type[BaseModel], schemas: ModelSchemas) -> Iterator[JsonSchema]:
    fields = schemas.fields_of(query)
    for name, field in query.model_fields.items():
        shown = dict(fields["properties"][name])
        text = shown.pop("description", "")
        parameter: JsonSchema = {"name": name, "in": "query", "schema": _without_null(shown)}
        if name in fields.get("required", ()):
            parameter["required"] = True
        if text:
            parameter["description"] = text
        yield parameter | _style(parameter["schema"])
        if isinstance(field.validation_alias, AliasChoices):
            yield from (_alias(parameter, other, name) for other in field.validation_alias.choices if other != name)


def _style(schema: JsonSchema) -> JsonSchema:
    """Return how a list or an object is written in a query: `name=a,b` and `name[k]=v`."""
    if schema.get("type") == "array":
        return {"style": "form", "explode": False}
    return {"style": "deepObject", "explode": True} if schema.get("type") == "object" else {}


def _alias(parameter: JsonSchema, other: Any, name: str) -> JsonSchema:
    schema = {key: value for key, value in parameter["schema"].items() if key != "default"}
    return {"name": other, "in": "query", "description": f"The same as `{name}`.", "schema": schema}


def _without_null(schema: JsonSchema) -> JsonSchema:
    """Return the schema of a value in a query, where nothing is null: a parameter without a value is left out."""
    kept = {key: value for key, value in schema.items() if value is not None}
    options = [each for each in kept.pop("anyOf", ()) if each != {"type": "null"}]
    return {**options[0], **kept} if len(options) == 1 else {"anyOf": options, **kept} if options else kept


def _headers(described: DescribedOperation) -> Iterator[JsonSchema]:
    if described.takes_idempotency_key:
        yield _reference("IdempotencyKey")
        yield _reference("Traceparent")
    if described.operation.id == "list_events":
        yield _reference("LastEventId")
    if described.is_replicate and described.operation.body is not None:
        yield _reference("Prefer")


def _reference(name: str) -> JsonSchema:
    return {"$ref": f"#/components/parameters/{name}"}
