"""The condition that a client's own metadata has a given value under a given name, for both databases."""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, String, case, cast, func, select
from sqlalchemy.ext.compiler import compiles


class has_metadata(ColumnElement[bool]):  # noqa: N801 - used as a function, as SQLAlchemy's own constructs are
    """The condition that a JSON document has this value under this name.

    `value` is text, because it comes from a query string: a number, boolean or null in the document is compared in the
    form that JSON writes it.
    """

    type = Boolean()
    inherit_cache = False

    def __init__(self, document: ColumnElement[Any], name: str, value: str) -> None:
        self.document = document
        self.name = name
        self.value = value


@compiles(has_metadata, "sqlite")
def _has_metadata_on_sqlite(element: has_metadata, compiler: Any, **options: Any) -> str:
    member = func.json_each(element.document).table_valued("key", "type", "atom")
    written = case((member.c.type.in_(("true", "false", "null")), member.c.type), else_=cast(member.c.atom, String))
    found = select(member.c.key).where(member.c.key == element.name, written == element.value).exists()
    return str(compiler.process(found, **options))


@compiles(has_metadata, "postgresql")
def _has_metadata_on_postgresql(element: has_metadata, compiler: Any, **options: Any) -> str:
    member = element.document[element.name]
    written = case(
        (func.jsonb_typeof(member) == "null", "null"),
        else_=func.jsonb_extract_path_text(element.document, element.name),
    )
    return str(compiler.process(written == element.value, **options))
