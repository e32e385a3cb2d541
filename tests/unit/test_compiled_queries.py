"""Queries with constructs of our own are compiled once, not at each request: that would be half of a page."""

from typing import Any

import pytest
from sqlalchemy import Select, create_engine, event
from sqlalchemy.engine.interfaces import CacheStats

from models import metadata
from receiver.storage.large_rows import bytes_of
from receiver.storage.runs import RunFilter, runs_matching
from receiver.storage.tables import tasks
from receiver.storage.tasks import TaskFilter, shortened_tasks, tasks_matching


def sizes(limit: int) -> Select[Any]:
    return tasks_matching(TaskFilter(organization_id=limit), limit).with_only_columns(bytes_of(tasks))


def tasks_with(value: int) -> Select[Any]:
    return tasks_matching(TaskFilter(organization_id=1, metadata={f"name{value}": str(value)}), 1)


def runs_with(value: int) -> Select[Any]:
    return runs_matching(RunFilter(organization_id=1, metadata={f"name{value}": str(value)}), 1)


def brief(key: int) -> Select[Any]:
    return shortened_tasks([key])


@pytest.mark.parametrize("query", [sizes, tasks_with, runs_with, brief])
def test_a_query_with_other_values_is_not_compiled_again(query: Any) -> None:
    found: list[CacheStats] = []
    engine = create_engine("sqlite://")
    event.listen(engine, "before_cursor_execute", lambda *all_of_it: found.append(all_of_it[4].cache_hit))
    with engine.connect() as connection:
        metadata.create_all(connection)
        found.clear()
        for value in (1, 2):
            connection.execute(query(value)).all()
    engine.dispose()
    assert found == [CacheStats.CACHE_MISS, CacheStats.CACHE_HIT]
