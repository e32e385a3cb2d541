"""The schemas of the description as tables of fields: what a field is called, has, may be, and means."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from markupsafe import Markup, escape
from msgspec import Struct, field

from receiver.dashboard.prose import render_inline

DocumentPart = Mapping[str, Any]
COMPONENTS = "#/components/schemas/"
_DEEPEST = 4
_MOST_VALUES = 8
"""An enumeration with more values is a link to where it is shown."""
_WORDS = {
    "uuid": "UUID",
    "date-time": "time",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "array": "list",
    "null": "null",
}
_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "more than {}"),
    ("maximum", "at most {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("maxProperties", "at most {} fields"),
)


class ShownField(Struct, frozen=True):
    """A field: `bounds` are what its value must fulfil besides its type, `fields` those of the object that it has."""

    name: str
    type: Markup
    is_required: bool
    text: Markup
    bounds: str
    fields: list["ShownField"] = field(default_factory=list)


class SchemaFields:
    """Shows the schemas of a document. `page` is the URL of the reference, where its links lead."""

    def __init__(self, document: DocumentPart, page: str) -> None:
        self._components: Mapping[str, DocumentPart] = document["components"]["schemas"]
        self._page = page

    def of(self, schema: DocumentPart, *, nested: bool = False) -> list[ShownField]:
        """Return the fields of an object, with `nested` also those of the objects in it."""
        return list(self._fields(self.resolved(schema), nested=nested, above=()))

    def resolved(self, schema: DocumentPart) -> DocumentPart:
        """Return the component that a schema refers to; another schema as it is."""
        name = component_of(schema)
        return schema if name is None else self._components[name]

    def shown(self, name: str, schema: DocumentPart, text: str, *, is_required: bool) -> ShownField:
        """Return a value as a field without those in it: a parameter, a header."""
        return ShownField(name, self.type_of(schema), is_required, render_inline(text), _bounds(schema))

    def type_of(self, schema: DocumentPart) -> Markup:
        """Return the type of a value in words, with links to the objects in it."""
        if (name := component_of(schema)) is not None:
            values = self._components[name].get("enum")
            if values is not None and len(values) <= _MOST_VALUES:
                return _one_of(values)
            return Markup('<a href="{}#schema-{}">{}</a>').format(self._page, name, name)
        if "const" in schema:
            return _value(schema["const"])
        if "enum" in schema:
            return _one_of(schema["enum"])
        options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if options:
            return Markup(" or ").join(dict.fromkeys(map(self.type_of, options)))
        return self._plain_type(schema)

    def _plain_type(self, schema: DocumentPart) -> Markup:
        kinds = schema.get("type", ())
        if not isinstance(kinds, str):
            return Markup(" or ").join(self._plain_type({**schema, "type": each}) for each in kinds) or Markup("any")
        if kinds == "array" and "items" in schema:
            return Markup("list of {}").format(self.type_of(schema["items"]))
        values = schema.get("additionalProperties")
        if kinds == "object" and isinstance(values, Mapping):
            return Markup("object of {}").format(self.type_of(values))
        return escape(_WORDS[schema["format"]] if schema.get("format") in _WORDS else _WORDS[kinds])

    def _fields(self, schema: DocumentPart, *, nested: bool, above: tuple[str, ...]) -> Iterator[ShownField]:
        required = schema.get("required", ())
        for name, each in sorted(schema.get("properties", {}).items(), key=lambda item: item[0] not in required):
            inner = self._inner(each) if nested and len(above) < _DEEPEST else None
            below: list[ShownField] = []
            if inner is not None and inner not in above:
                below = list(self._fields(self._components[inner], nested=True, above=(*above, inner)))
            shown = self.shown(name, each, each.get("description", ""), is_required=name in required)
            yield ShownField(shown.name, shown.type, shown.is_required, shown.text, shown.bounds, below)

    def _inner(self, schema: DocumentPart) -> str | None:
        """Return the name of the one object that a value is or has."""
        for each in (schema, *schema.get("anyOf", ())):
            name = component_of(each.get("items", each))
            if name is not None and "properties" in self._components[name]:
                return name
        return None


def component_of(schema: DocumentPart) -> str | None:
    """Return the name of the component that a schema refers to; None if it does not."""
    to = schema.get("$ref")
    return None if to is None else str(to).removeprefix(COMPONENTS)


def _one_of(values: list[Any]) -> Markup:
    return Markup(", ").join(map(_value, values))


def _value(value: Any) -> Markup:
    return Markup("<code>{}</code>").format(value if isinstance(value, str) else orjson.dumps(value).decode())


def _bounds(schema: DocumentPart) -> str:
    """Return what a value must fulfil, in words; of one that may be null or missing the same."""
    kept = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    inner = kept[0] if len(kept) == 1 else {}
    found = [text.format(value) for name, text in _BOUNDS if (value := schema.get(name, inner.get(name))) is not None]
    if (default := schema.get("default")) is not None:
        found.append(f"{orjson.dumps(default).decode()} by default")
    return ", ".join(found)
