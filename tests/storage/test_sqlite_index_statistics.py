"""What SQLite assumes of its indexes: the same in each file, for each index, and such that nothing reads all tasks."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, Select
from sqlalchemy.exc import OperationalError

import models
from receiver.domain.ids import new_id
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.deliveries import DeliveryFilter, deliveries_matching, delivery_by_id
from receiver.storage.schema import migrate
from receiver.storage.sqlite.index_statistics import write_index_statistics
from receiver.storage.tasks import task_by_id, task_if_small
from tests.storage.test_task_lists import explained

pytestmark = pytest.mark.sqlite_only("PostgreSQL counts by itself")

INDEXES = {str(index.name) for table in models.metadata.tables.values() for index in table.indexes}


def statistics(settings: Settings, *changes: str) -> dict[str, str]:
    """Run statements; return the numbers of each index."""
    with closing(sqlite3.connect(settings.sqlite_path)) as connection:
        for change in changes:
            connection.execute(change)
        connection.commit()
        return dict(connection.execute("SELECT idx, stat FROM sqlite_stat1").fetchall())


@pytest.mark.parametrize("change", ["DROP TABLE sqlite_stat1", "DELETE FROM sqlite_stat1", "ANALYZE"])
async def test_a_start_writes_them_for_every_index_whatever_the_file_has(settings: Settings, change: str) -> None:
    await migrate(settings)
    written = statistics(settings)
    assert written.keys() >= INDEXES
    assert written["ix_task_status"] == "1000000 1000000 250000 1"
    with closing(sqlite3.connect(settings.sqlite_path)) as connection:
        connection.execute(change)
        connection.commit()
    await migrate(settings)
    assert statistics(settings) == written


async def test_a_file_that_has_them_is_left_as_it_is(settings: Settings) -> None:
    _, head = await migrate(settings)
    before = settings.sqlite_path.read_bytes()
    assert await migrate(settings) == (head, head)
    assert settings.sqlite_path.read_bytes() == before


async def test_a_start_goes_on_without_them_where_the_disk_is_full(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(connection: Connection) -> None:
        write_index_statistics(connection)
        raise OperationalError("INSERT", None, sqlite3.OperationalError("database or disk is full"))

    _, head = await migrate(settings)
    statistics(settings, "DELETE FROM sqlite_stat1")
    monkeypatch.setattr("receiver.storage.schema.write_index_statistics", full)
    assert await migrate(settings) == (head, head)
    assert statistics(settings) == {}


@pytest.mark.parametrize(
    "query",
    [
        task_by_id(1, new_id()),
        task_by_id(1, "an-id-at-the-provider"),
        task_if_small(1, new_id())[0].params(of_organization=1, task_id=new_id()),
        deliveries_matching(DeliveryFilter(organization_id=1), 50),
        delivery_by_id(1, new_id()),
    ],
    ids=["task", "task by the provider's id", "small task", "deliveries", "delivery"],
)
async def test_what_is_asked_most_is_neither_sorted_nor_found_by_its_organization(
    database: Database, query: Select[Any]
) -> None:
    plan = await explained(database, query, is_sqlite=True)
    assert "task USING INDEX ix_task_task_type" not in plan, plan
    assert "SCAN task" not in plan, plan
    assert "SCAN subscription" not in plan, plan
