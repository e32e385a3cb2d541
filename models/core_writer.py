"""Writes `models/core.py`, the tables of the classes for SQLAlchemy Core: `python -m models.core_writer`.

The classes say what the tables are; a service that starts builds no class. A test holds that the file is what this
writes.
"""

from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text
from sqlalchemy.types import TypeEngine
from sqlmodel import AutoString

from models.classes import metadata
from models.columns import BigKey, BytewiseText, Document, Moment, PublicId

TARGET = Path(__file__).with_name("core.py")
_HEAD = '''"""The tables of `models.classes` for SQLAlchemy Core, with what statements need of them.

Written by `python -m models.core_writer`: change the classes, and run it. What the database alone needs is left out:
indexes, unique constraints, defaults of its own.
"""

from sqlalchemy import Boolean, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

from models.columns import BigKey, BytewiseText, Document, Moment, PublicId
from models.states import (
{states}
)

_moment, _public_id, _string = Moment(), PublicId(), String()

metadata = MetaData()
'''
_INDEXES = '''
INDEXES = (
{indexes}
)
"""The indexes: table, name, columns, and whether it is partial."""
'''
_ONES = {id(BigKey): "BigKey", id(BytewiseText): "BytewiseText", id(Document): "Document"}
_KINDS: dict[type[TypeEngine[Any]], str] = {
    AutoString: "_string",
    Boolean: "Boolean",
    Float: "Float",
    Integer: "Integer",
    Moment: "_moment",
    PublicId: "_public_id",
    String: "_string",
    Text: "Text",
}


def written() -> str:
    """Return the text of the file."""
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    enums = {
        type(value).__name__
        for table in tables
        for column in table.columns
        if isinstance(value := _default(column), Enum)
    }
    head = _HEAD.format(states="\n".join(f"    {name}," for name in sorted(enums)))
    indexes = [line for table in tables for line in _indexes(table)]
    return "\n".join([head, *map(_table, tables), *_INDEXES.format(indexes="\n".join(indexes)).splitlines(), ""])


def _table(table: Table) -> str:
    parts = [*map(_column, table.columns), *(f"{name}={value}" for name, value in table.kwargs.items())]
    given = "\n".join(f"    {each}," for each in parts)
    return f'{table.name} = Table(\n    "{table.name}",\n    metadata,\n{given}\n)'


def _column(column: Column[Any]) -> str:
    given = [f'"{column.name}"', _ONES.get(id(column.type)) or _KINDS[type(column.type)]]
    given += [f'ForeignKey("{key.target_fullname}")' for key in column.foreign_keys]
    if column.primary_key:
        given.append("primary_key=True")
    elif not column.nullable:
        given.append("nullable=False")
    if (value := _default(column)) is not None:
        given.append(f"default={_written_value(value)}")
    return f"Column({', '.join(given)})"


def _default(column: Column[Any]) -> Any:
    """Return the value that an insert sends where it names none; None if it sends none.

    Raises `ValueError` for a column of which this writer would lose something.
    """
    if column.default is None:
        lost = column.server_default is not None or column.onupdate is not None
    else:
        lost = not column.default.is_scalar or column.onupdate is not None
    if lost or column.key != column.name or column.autoincrement != "auto":
        raise ValueError(f"{column} has something that is not written")
    return None if column.default is None else column.default.arg  # type: ignore[attr-defined]


def _written_value(value: Any) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, Enum) else repr(value).replace("'", '"')


def _indexes(table: Table) -> list[str]:
    return [_index(table, index) for index in sorted(table.indexes, key=lambda index: str(index.name))]


def _index(table: Table, index: Index) -> str:
    columns = ", ".join(f'"{column.name}"' for column in index.columns) + ("," if len(index.columns) == 1 else "")
    is_partial = index.dialect_options["sqlite"]["where"] is not None
    return f'    ("{table.name}", "{index.name}", ({columns}), {is_partial}),'


if __name__ == "__main__":
    TARGET.write_text(written())
