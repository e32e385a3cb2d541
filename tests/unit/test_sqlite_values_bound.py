"""How values reach SQLite's driver."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum

import pytest

from models import TaskStatus, states
from receiver.storage.sqlite.values import adapt_values

KINDS = [each for each in vars(states).values() if isinstance(each, type) and issubclass(each, StrEnum)]


@pytest.fixture
def driver() -> Iterator[sqlite3.Connection]:
    adapt_values()
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.mark.parametrize(
    ("value", "stored", "kind"),
    [(None, None, "null"), (True, 1, "integer"), (False, 0, "integer"), (TaskStatus.QUEUED, "queued", "text")],
)
def test_a_value_that_the_driver_is_told_of_is_stored_as_it_was(
    driver: sqlite3.Connection, value: object, stored: object, kind: str
) -> None:
    assert driver.execute("SELECT ?1, typeof(?1)", (value,)).fetchone() == (stored, kind)


def test_the_driver_is_told_of_all_that_rows_have_besides_texts_and_numbers() -> None:
    adapt_values()
    told = {kind for kind, _ in sqlite3.adapters}
    assert {type(None), bool, *[each for each in KINDS if each is not StrEnum]} <= told
