"""The queries of the lists that go by families of models: what they return, and that an index serves them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Select, text
from sqlalchemy.dialects import postgresql, sqlite

from models import TaskStatus
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.tasks import TaskFilter, count_active, count_tasks, models_of, newest_active, tasks_matching
from receiver.storage.transaction import Transaction
from tests.storage.rows import NOW, add_organization, add_tasks, task_row

MODELS = ("flux1-dev", "flux1-schnell", "Kling", "kling", "ü")


@pytest.fixture(autouse=True)
async def _organizations(database: Database) -> None:
    assert await add_organization(database) == 1
    assert await add_organization(database, "another") == 2


async def fill(database: Database, number: int = 40) -> list[dict[str, Any]]:
    """Insert tasks of several models, states and organizations; return those of the first one, newest first."""
    states = list(TaskStatus)
    rows = [
        task_row(
            model=MODELS[n % len(MODELS)],
            status=states[n % len(states)],
            organization_id=1 if n % 4 else 2,
            created_at=NOW + timedelta(seconds=n),
        )
        for n in range(number)
    ]
    await add_tasks(database, *rows)
    return [row for row in reversed(rows) if row["organization_id"] == 1]


async def test_the_models_of_an_organization_are_each_listed_once(database: Database) -> None:
    assert await database.read(models_of(1)) == []
    await fill(database)
    await add_tasks(database, task_row(model="only of another", organization_id=2))
    assert sorted(row["model"] for row in await database.read(models_of(1))) == sorted(MODELS)


async def test_the_tasks_of_several_models_are_pages_of_one_list(database: Database) -> None:
    wanted = [row["uid"] for row in await fill(database) if row["model"] in ("flux1-dev", "Kling")]
    query = TaskFilter(organization_id=1, models=["flux1-dev", "Kling"])
    pages = [await database.read(tasks_matching(query, 5, offset)) for offset in range(0, len(wanted) + 5, 5)]
    assert [row["uid"] for page in pages for row in page] == wanted
    assert (await database.read(count_tasks(query)))[0]["count"] == len(wanted)
    assert {"input", "callback_url"} <= pages[0][0].keys()


async def test_the_tasks_of_no_model_are_none_and_those_of_any_model_are_all(database: Database) -> None:
    everything = await fill(database)
    assert await database.read(tasks_matching(TaskFilter(organization_id=1, models=[]), 200)) == []
    assert len(await database.read(tasks_matching(TaskFilter(organization_id=1), 200))) == len(everything)


async def test_the_newest_active_tasks_of_each_model_are_read(database: Database) -> None:
    rows = await fill(database)
    active = [row for row in rows if row["status"] in ("queued", "staged", "pending", "processing")]
    counted = await database.read(count_active(1))
    assert sum(row["count"] for row in counted) == len(active)
    assert [row["uid"] for row in await database.read(newest_active(1, 100, 100))] == [row["uid"] for row in active]
    newest = {row["model"]: row["uid"] for row in reversed(active)}
    assert {row["model"]: row["uid"] for row in await database.read(newest_active(1, 1, 100))} == newest
    assert len(await database.read(newest_active(1, 100, 3))) == 3


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (models_of(1), "ix_task_model"),
        (tasks_matching(TaskFilter(organization_id=1, models=["model-1", "model-2"]), 10), "ix_task_model"),
        (count_tasks(TaskFilter(organization_id=1, models=["model-1", "model-2"])), "ix_task_model"),
        (count_active(1), "ix_task_status"),
        (newest_active(1, 100, 2000), "ix_task_status"),
    ],
    ids=["models", "page", "count", "active", "newest active"],
)
async def test_an_index_serves_the_lists(
    database: Database, settings: Settings, query: Select[Any], index: str
) -> None:
    ended = [task_row(model=f"model-{n % 50}", status=TaskStatus.COMPLETED) for n in range(2000)]
    await add_tasks(database, *ended, task_row(model="model-7"))
    plan = await explained(database, query, is_sqlite=settings.is_sqlite)
    assert index in plan, plan
    assert "SCAN task" not in plan, plan
    assert "Seq Scan on task" not in plan, plan


async def explained(database: Database, query: Select[Any], *, is_sqlite: bool) -> str:
    """Return the database's plan of a query: PostgreSQL's by statistics that it has just made, SQLite's by its own."""
    dialect = sqlite.dialect() if is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    compiled = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "

    async def work(tx: Transaction) -> Sequence[Any]:
        if not is_sqlite:
            await tx.execute(text("ANALYZE"))
        return await tx.execute(text(explain + compiled.replace(":", r"\:")))

    return "\n".join(str(row[-1]) for row in await database.writer.run(work))
