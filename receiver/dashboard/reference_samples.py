"""Examples of requests and answers: those of the description, and for the other operations one of its schemas."""

import shlex
from collections.abc import Mapping
from typing import Any

import orjson

from receiver.dashboard.reference_fields import DocumentPart, component_of

ADDRESS = "https://ringback.invalid"
"""Stands for the reader's address where examples are kept."""
JSON = "application/json"
_DEEPEST = 6
_LONGEST_LINE = 70
"""Characters of a body in one line."""
_FORMATS: Mapping[str, Any] = {
    "uuid": "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6072",
    "date-time": "2026-01-31T09:30:00.000000Z",
}
_KINDS: Mapping[str, Any] = {"string": "text", "integer": 1, "number": 1.0, "boolean": True, "null": None, "object": {}}


class Samples:
    """Makes examples. What an example of the description has for a component, others have for it too."""

    def __init__(self, document: DocumentPart) -> None:
        self._components: Mapping[str, DocumentPart] = document["components"]["schemas"]
        self._known: dict[str, Any] = {}
        self._named: dict[tuple[str, Any], Any] = {}
        for item in document["paths"].values():
            for operation in item.values():
                for content in contents_of(operation):
                    if "example" in content:
                        self._learn(content["schema"], content["example"])

    def of_content(self, content: DocumentPart, *, brief: bool = False) -> Any:
        """Return the example of a body; with `brief` only with what is required if it is made here."""
        return content["example"] if "example" in content else self._of(content.get("schema", {}), brief, 0)

    def _learn(self, schema: DocumentPart, example: Any) -> None:
        name = component_of(schema)
        if name is not None:
            self._known.setdefault(name, example)
            schema = self._components[name]
        if isinstance(example, dict):
            for key, each in schema.get("properties", {}).items():
                if key in example:
                    self._learn(each, example[key])
                    if not isinstance(example[key], dict | list):
                        self._named.setdefault(_key(key, each), example[key])
        elif isinstance(example, list) and example and "items" in schema:
            self._learn(schema["items"], example[0])

    def _of(self, schema: DocumentPart, brief: bool, depth: int) -> Any:
        name = component_of(schema)
        if name in self._known:
            return self._known[name]
        if name is not None:
            schema = self._components[name]
        if depth > _DEEPEST:
            return {}
        for key in ("const", "default"):
            if schema.get(key) is not None:
                return schema[key]
        for key in ("examples", "enum"):
            if schema.get(key):
                return schema[key][0]
        options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if options:
            return self._of(options[0], brief, depth)
        return self._of_type(schema, brief, depth)

    def _of_type(self, schema: DocumentPart, brief: bool, depth: int) -> Any:
        kind = schema.get("type", "object")
        kind = kind if isinstance(kind, str) else kind[0]
        if "properties" in schema:
            required = schema.get("required", ())
            names = [name for name in schema["properties"] if name in required or not brief]
            return {name: self._of_field(name, schema["properties"][name], brief, depth) for name in names}
        if kind == "array":
            return [self._of(schema["items"], brief, depth + 1)] if "items" in schema else []
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        return schema.get("minimum", _KINDS[kind]) if kind in ("integer", "number") else _KINDS[kind]

    def _of_field(self, name: str, schema: DocumentPart, brief: bool, depth: int) -> Any:
        """Return what a field of this name and type has in another example, else one that is made."""
        known = _key(name, schema)
        return self._named[known] if known in self._named else self._of(schema, brief, depth + 1)


def _key(name: str, schema: DocumentPart) -> tuple[str, Any]:
    """Return what fields with the same kind of value have alike."""
    return name, repr([schema.get(each) for each in ("type", "format", "anyOf", "$ref", "const", "pattern")])


def contents_of(operation: DocumentPart) -> list[DocumentPart]:
    """Return the JSON bodies of an operation: its request's, and those of its answers."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    return [body["content"][JSON] for body in bodies if JSON in body.get("content", {})]


def curl(method: str, path: str, operation: DocumentPart, body: Any) -> str:
    """Return the command that sends a request; ids in the path are variables of the shell."""
    url = ADDRESS + path.replace("{provider}", "piapi")
    for parameter in operation.get("parameters", ()):
        if parameter.get("in") == "path":
            url = url.replace(f"{{{parameter['name']}}}", f"${parameter['name'].upper()}")
        elif parameter.get("in") == "query" and parameter.get("required"):
            url += f"{'&' if '?' in url else '?'}{parameter['name']}=${parameter['name'].upper()}"
    parts = [f'"{url}"']
    if method != ("GET" if "requestBody" not in operation else "POST"):
        parts.insert(0, f"-X {method}")
    parts += _proof(operation)
    given = operation.get("requestBody", {}).get("content", {})
    if JSON in given:
        text = orjson.dumps(body).decode()
        if len(text) > _LONGEST_LINE:
            text = orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()
        parts += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(text)}"]
    elif given:
        parts.append("-F file=@FILE")
    return "curl " + " \\\n  ".join(parts)


def _proof(operation: DocumentPart) -> list[str]:
    """Return the header that lets a request in."""
    names = {name for each in operation.get("security", ()) for name in each}
    if "ApiKey" in names:
        return ['-H "X-API-Key: $RINGBACK_API_KEY"']
    return ['-H "X-Webhook-Secret: $SECRET"'] if "HookSecret" in names else []
