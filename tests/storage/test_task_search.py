"""Free-text search: what matches is found, newest first and page by page, and nothing else."""

from typing import Any

import pytest

from models import EventType, TaskStatus
from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.task_search import search_tasks
from receiver.storage.tasks import TaskFilter
from receiver.workers.statistics import StatisticsWorker
from tests.storage.rows import NOW, add_organization, add_tasks, new_event, task_row

PROVIDER_IDS = ("aBcd9f1e-77", "aBcd9f1e-7a", "aBcd9f19-99", "aBcd9fzz-1z", "zzzzzzzz-1", "x")


@pytest.fixture(autouse=True)
async def keys(database: Database) -> list[int]:
    """The row keys of tasks that differ in all that is searched; the last is another organization's."""
    for name in ("default", "another"):
        await add_organization(database, name)
    metadata: list[Any] = [{"campaign": "Spring 26"}, {"campaign": "spring 27", "n": 26}, {"x": "100%_a"}, None, {}, []]
    rows = [
        task_row(provider_task_id=provider_id, metadata=own, model=model)
        for provider_id, own, model in zip(
            PROVIDER_IDS, metadata, ("flux-dev", "Flux-Pro", "kling", "kling", "kling", "Kling"), strict=True
        )
    ]
    rows.append(task_row(organization_id=2, model="flux-dev", metadata={"campaign": "Spring 26"}))
    found = await add_tasks(database, *rows)
    created = [
        new_event(key, type=EventType.TASK_CREATED, organization_id=row["organization_id"], created_at=NOW)
        for key, row in zip(found, rows, strict=True)
    ]
    await database.writer.run(lambda tx: tx.insert_events(created))
    await StatisticsWorker(database).count()
    return found


async def search(database: Database, text: str, limit: int = 50, **fields: Any) -> list[int]:
    return await search_tasks(database.read, TaskFilter(organization_id=1, **fields), text, ("piapi", "other"), limit)


FOUND: dict[str, list[int]] = {
    "x": [5, 1, 0],
    "aBcd9f1e-77": [0],
    "aBcd9f1e": [1, 0],
    "aBcd9f1e-": [1, 0],
    "aBcd9f1": [],
    "aBcd9f19": [2],
    "aBcd9fzz": [3],
    "zzzzzzzz": [],
    "zzzzzzzz-1": [4],
    "FLUX": [1, 0],
    "kling": [5, 4, 3, 2],
    "spring 26": [0],
    "SPRI": [1, 0],
    "sp": [],
    "26": [1],
    "100%": [2],
    "1__": [],
    "pring 26": [],
    "\0": [],
}


async def test_what_matches_is_found_newest_first(database: Database, keys: list[int]) -> None:
    found = {text: await search(database, text) for text in FOUND}
    assert found == {text: [keys[place] for place in places] for text, places in FOUND.items()}


async def test_a_task_is_found_by_its_id_and_by_the_beginning_of_it(database: Database, keys: list[int]) -> None:
    uid = new_id()
    (key,) = await add_tasks(database, task_row(uid=uid))
    for text in (uid, uid.upper(), uid[:35], uid[:24]):
        assert await search(database, text) == [key]
    assert key in await search(database, uid[:8])
    assert await search(database, uid[:7]) == []


async def test_the_other_filters_and_the_cursor_hold(database: Database, keys: list[int]) -> None:
    assert await search(database, "kling", model="Kling") == [keys[5]]
    assert await search(database, "flux", model="kling") == []
    assert await search(database, "spring", model="flux-dev") == [keys[0]]
    assert await search(database, "kling", status=TaskStatus.FAILED) == []
    first = await search(database, "kling", limit=2)
    assert first + await search(database, "kling", limit=2, before=first[-1]) == [keys[n] for n in (5, 4, 3, 2)]
    assert await search(database, "spring", before=keys[1]) == [keys[0]]
