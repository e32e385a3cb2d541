"""The condition that a client's own metadata has a given value under a given name, for both databases."""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class has_metadata(FunctionElement[bool]):  # noqa: N801 - used as a function, as SQLAlchemy's own constructs are
    """The condition that a JSON document has this value under this name.

    `value` is text, because it comes from a query string: a number, boolean or null in the document is compared in the
    form that JSON writes it.
    """

    type = Boolean()
    inherit_cache = True

    def __init__(self, document: ColumnElement[Any], name: str, value: str) -> None:
        super().__init__(document, literal(name, Text), literal(value, Text))


@compiles(has_metadata, "sqlite")
def _has_metadata_on_sqlite(element: has_metadata, compiler: Any, **options: Any) -> str:
    document, name, value = (compiler.process(each, **options) for each in element.clauses)
    written = "CASE WHEN member.type IN ('true', 'false', 'null') THEN member.type ELSE CAST(member.atom AS TEXT) END"
    found = f"SELECT 1 FROM json_each({document}) AS member WHERE member.key = {name} AND {written} = {value}"
    return f"EXISTS ({found})"


@compiles(has_metadata, "postgresql")
def _has_metadata_on_postgresql(element: has_metadata, compiler: Any, **options: Any) -> str:
    document, name, value = (compiler.process(each, **options) for each in element.clauses)
    is_null = f"jsonb_typeof({document} -> {name}) = 'null'"
    return f"(CASE WHEN {is_null} THEN 'null' ELSE jsonb_extract_path_text({document}, {name}) END = {value})"
