"""The tables of `models.core`, which statements use, are those of the classes; and who asks for a class gets it."""

import re
import subprocess
import sys

import pytest
from sqlalchemy import Column, Dialect, Integer, MetaData, Table, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable
from sqlmodel import AutoString

import models
from models import core, core_writer

DIALECTS = pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=["sqlite", "postgresql"])  # type: ignore[no-untyped-call]
TABLES = pytest.mark.parametrize("name", sorted(models.metadata.tables))


def both(name: str) -> tuple[Table, Table]:
    return core.metadata.tables[name], models.metadata.tables[name]


def test_the_file_is_what_its_writer_writes() -> None:
    assert core_writer.TARGET.read_text() == core_writer.written(), "run: python -m models.core_writer"


def test_there_are_the_same_tables() -> None:
    assert core.metadata.tables.keys() == models.metadata.tables.keys()
    assert {(table, index) for table, index, _, _ in core.INDEXES} == {
        (table.name, index.name) for table in models.metadata.tables.values() for index in table.indexes
    }


@DIALECTS
@TABLES
def test_columns_types_and_keys_are_the_same(name: str, dialect: Dialect) -> None:
    """All of it is in the statement that makes the table, beside what the database alone needs."""
    ours, theirs = (
        re.sub(r" DEFAULT \S+?(?= |,)|,?\s+UNIQUE \(\w+\)", "", made(table, dialect)) for table in both(name)
    )
    assert ours == theirs


def made(table: Table, dialect: Dialect) -> str:
    return str(CreateTable(table).compile(dialect=dialect))


@DIALECTS
@TABLES
def test_an_insert_sends_the_same_values_by_itself(name: str, dialect: Dialect) -> None:
    given, sent = [], []
    for table in both(name):
        needed = [each.name for each in table.columns if each.default is None and not each.nullable]
        compiled = insert(table).compile(dialect=dialect, column_keys=needed)
        given.append(str(compiled))
        sent.append([(each.name, each.default.arg) for each in table.columns if each.default is not None])  # type: ignore[attr-defined]
    assert given[0] == given[1]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    "column",
    [
        Column("name", AutoString(), server_default="it"),
        Column("name", AutoString(), default=lambda: "it"),
        Column("name", AutoString(), onupdate="it"),
        Column("name", AutoString(), key="other"),
        Column("name", Integer, autoincrement=False),
    ],
)
def test_a_column_of_which_something_would_be_lost_is_refused(
    column: Column[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = MetaData()
    Table("other", metadata, column)
    monkeypatch.setattr(core_writer, "metadata", metadata)
    with pytest.raises(ValueError, match="something that is not written"):
        core_writer.written()


def test_a_class_is_imported_when_it_is_asked_for() -> None:
    program = (
        "import sys, models, models.core\n"
        "assert not {'sqlmodel', 'models.classes', 'models.tasks'} & set(sys.modules)\n"
        "assert {'Task', 'TaskStatus', 'metadata'} <= set(dir(models))\n"
        "from models import *\n"
        "assert Task.__table__ is metadata.tables['task'] and models.Task is Task and TaskStatus.FAILED\n"
        "assert len(metadata.tables) == len(models.core.metadata.tables)\n"
        "try: models.Nothing\n"
        "except AttributeError: print('none')"
    )
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert asked.stdout == "none\n"
