"""The JSON schemas of the models, as components of the document."""

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from receiver.api.description.prose import description_of

JsonSchema = dict[str, Any]
COMPONENTS = "#/components/schemas/"
_SUFFIX = "Answer"


class _Generator(GenerateJsonSchema):
    """Leaves out titles, which repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _with_docstrings(schema["cls"], _without_title(super().model_schema(schema)))


class ModelSchemas:
    """Makes references to models, and in the end the components that they refer to."""

    def __init__(self, models: Iterable[Any]) -> None:
        """Make the schemas of these models; what they consist of is a component too."""
        wanted: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = [
            (model, "validation", TypeAdapter(model)) for model in models
        ]
        made, found = TypeAdapter.json_schemas(
            wanted, ref_template=f"{COMPONENTS}{{model}}", schema_generator=_Generator
        )
        components = found.get("$defs", {})
        names = {name: component_name(name) for name in components}
        self._by_model: dict[Any, JsonSchema] = {model: _renamed(schema, names) for (model, _), schema in made.items()}
        self.components: dict[str, JsonSchema] = {
            names[name]: _renamed(_shown(each), names) for name, each in components.items()
        }
        """By name, which is the class's without `Answer`."""
        if len(self.components) < len(components):
            raise ValueError("two models have the same name in the document")

    def of(self, model: Any) -> JsonSchema:
        """Return the schema of a model, mostly a reference to its component."""
        return self._by_model[model]

    def fields_of(self, model: type[BaseModel]) -> JsonSchema:
        """Return the schema of a model itself."""
        return self.components[component_name(model.__name__)]


def component_name(name: str) -> str:
    """Return the name of a class's component."""
    return name.removesuffix(_SUFFIX)


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema with its references to components by the names that these have in the document."""
    if isinstance(schema, dict):
        return {
            key: COMPONENTS + names[value.removeprefix(COMPONENTS)] if key == "$ref" else _renamed(value, names)
            for key, value in schema.items()
        }
    return [_renamed(each, names) for each in schema] if isinstance(schema, list) else schema


def _shown(component: JsonSchema) -> JsonSchema:
    """Return a component as it is shown: that of an enum without its docstring, which is for who reads the code."""
    hidden = ("title", "description") if "enum" in component else ("title",)
    return {name: value for name, value in component.items() if name not in hidden}


def _without_title(schema: JsonSchema) -> JsonSchema:
    return {name: value for name, value in schema.items() if name != "title"}


def _with_docstrings(model: type[BaseModel], schema: JsonSchema) -> JsonSchema:
    """Return the schema of a model whose fields are described by the docstrings below them."""
    schema["description"] = description_of(model.__doc__ or "")
    for base in reversed(model.__mro__):
        for name, text in _field_docstrings(base):
            if (shown := schema.get("properties", {}).get(name)) is not None:
                shown["description"] = text
    return schema


def _field_docstrings(model: type) -> Iterator[tuple[str, str]]:
    if issubclass(model, BaseModel) and model.__module__.startswith("receiver."):
        yield from _docstrings_in(model.__module__).get(model.__name__, ())


_docstrings: dict[str, dict[str, list[tuple[str, str]]]] = {}


def _docstrings_in(module: str) -> dict[str, list[tuple[str, str]]]:
    """Return the docstrings of the fields of each class of a module.

    They are read here and not by pydantic, which would read them at each start.
    """
    if module not in _docstrings:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        _docstrings[module] = {node.name: list(_docstrings_of(node)) for node in classes}
    return _docstrings[module]


def _docstrings_of(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for each, following in zip(node.body, node.body[1:], strict=False):
        match each, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
