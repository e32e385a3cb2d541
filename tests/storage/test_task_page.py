"""A page of tasks is what a look at every task says, whichever way it is found."""

import random
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from models import EventType, TaskStatus
from receiver.domain.ids import first_id_at
from receiver.storage.database import Database
from receiver.storage.task_page import page_of_tasks
from receiver.storage.tasks import TaskFilter, add_metadata
from receiver.workers.statistics import StatisticsWorker
from tests.storage.rows import NOW, add_organization, add_tasks, new_event, task_row

VALUES: tuple[Any, ...] = ("a", "A", " a ", "b" * 120, "", 5, 5.0, 1e22, True, None, "null", "5", "true", [1], {"k": 1})
MANY = {f"n{n}": n for n in range(25)}


def uid_at(moment: Any, number: int) -> str:
    """Return the id of a row that was inserted at a time."""
    return f"{first_id_at(moment)[:24]}{number:012x}"


async def fill(database: Database, rng: random.Random, start: int, count: int) -> list[dict[str, Any]]:
    """Insert tasks with their events, an hour after each other; some are adopted days later than they were created."""
    rows = []
    for number in range(start, start + count):
        inserted = NOW + timedelta(hours=number)
        rows.append(
            task_row(
                uid=uid_at(inserted, number),
                organization_id=1 if rng.random() < 0.9 else 2,
                status=rng.choice((TaskStatus.COMPLETED, TaskStatus.FAILED)),
                model=rng.choice("mmmn"),
                task_type=rng.choice("ttttu"),
                provider=rng.choice(("piapi", "piapi", "fal")),
                metadata=rng.choice((None, {**MANY, "x": "a"}, {"x": rng.choice(VALUES), "y": rng.choice("ab")})),
                created_at=inserted - timedelta(hours=rng.choice((0, 0, 0, 90))),
            )
        )
    keys = await add_tasks(database, *rows)
    created = [
        new_event(key, type=EventType.TASK_CREATED, organization_id=row["organization_id"])
        for key, row in zip(keys, rows, strict=True)
    ]
    await database.writer.run(lambda tx: tx.insert_events(created))
    return [{**row, "id": key} for key, row in zip(keys, rows, strict=True)]


def cases(rng: random.Random) -> list[dict[str, Any]]:
    times = [None, *(NOW + timedelta(hours=hours) for hours in (-1000, 5, 60, 119, 1000))]
    metadata: list[dict[str, str]] = [{}, {"x": "a"}, {"x": "nothing"}, {"x": "a", "y": "b"}, {"n24": "24"}]
    metadata += [{"x": str(value)} for value in ("A", " a ", "b" * 120, "", "5", "5.0", "true", "null")]
    names = ("status", "model", "task_type", "provider", "created_after", "created_before", "metadata", "before")
    values = (
        [None, "completed", "cancelled"],
        [None, "m", "unused"],
        [None, "t", "u", "none"],
        [None, "piapi", "fal", "none"],
        times,
        times,
        metadata,
        [None, 40],
    )
    every = [dict(zip(names, each, strict=True)) for each in product(*values)]
    alone = [each for each in every if sum(bool(value) for value in each.values()) < 2]
    return alone + rng.sample(every, 60)


@pytest.mark.parametrize(("few", "behind"), [(1000, 5000), (4, 5000), (4, 3)])
async def test_a_page_is_what_a_look_at_every_task_says(
    database: Database, monkeypatch: pytest.MonkeyPatch, few: int, behind: int
) -> None:
    monkeypatch.setattr("receiver.storage.task_page.FEW", few)
    monkeypatch.setattr("receiver.storage.task_page.MOST_BEHIND", behind)
    rng = random.Random(few + behind)
    for name in ("default", "another"):
        await add_organization(database, name)
    rows = await fill(database, rng, 0, 100)
    await StatisticsWorker(database).count()
    adopted = next(row for row in rows if row["metadata"] is None and row["organization_id"] == 1)
    adopted["metadata"] = {"x": "a", **MANY}
    await database.writer.run(lambda tx: add_metadata(tx, 1, adopted["uid"], adopted["metadata"]))
    rows += await fill(database, rng, 100, 20)  # their metadata are not listed yet
    wrong = []
    for case in cases(rng):
        wanted = TaskFilter(organization_id=1, **case)
        found = [row["id"] for row in await database.read(await page_of_tasks(database.read, wanted, 7))]
        expected = [row["id"] for row in reversed(rows) if passes(row, wanted)][:7]
        if found != expected:
            wrong.append((case, found, expected))
    assert not wrong


async def test_a_page_may_begin_and_end_at_the_ends_of_time(database: Database) -> None:
    await add_organization(database, "default")
    (key,) = await add_tasks(database, task_row())
    first, last = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))
    for wanted, found in (
        (TaskFilter(organization_id=1, created_after=first), [key]),
        (TaskFilter(organization_id=1, created_before=last), [key]),
        (TaskFilter(organization_id=1, created_after=last), []),
        (TaskFilter(organization_id=1, created_before=first), []),
    ):
        rows = await database.read(await page_of_tasks(database.read, wanted, 7))
        assert [row["id"] for row in rows] == found


def passes(row: dict[str, Any], wanted: TaskFilter) -> bool:
    named = {name: getattr(wanted, name) for name in ("organization_id", "status", "model", "task_type", "provider")}
    return (
        all(value is None or row[name] == value for name, value in named.items())
        and (wanted.before is None or row["id"] < wanted.before)
        and (wanted.created_after is None or row["created_at"] > wanted.created_after)
        and (wanted.created_before is None or row["created_at"] < wanted.created_before)
        and all(is_written(row["metadata"] or {}, name, value) for name, value in wanted.metadata.items())
    )


def is_written(metadata: dict[str, Any], name: str, value: str) -> bool:
    """Return whether metadata have a value under a name, which is compared as JSON writes it."""
    if name not in metadata or isinstance(metadata[name], list | dict):
        return False
    own = metadata[name]
    written = {None: "null", True: "true"}.get(own, own) if own is None or own is True else own
    return str(written) == value
