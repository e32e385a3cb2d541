"""A wait for several tasks: what it holds, and what ends it."""

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from receiver.domain.ids import new_id
from receiver.events import after_commit
from receiver.events.after_commit import Waiting
from receiver.tracking.wait import TaskWaits


class Row(dict[str, Any]):
    """A row that can be watched."""


class Tasks:
    """Stands for the database, which is asked how far tasks are."""

    def __init__(self, count: int) -> None:
        self.statuses = {new_id(): "pending" for _ in range(count)}
        self.reads: list[int] = []
        self.rows: list[weakref.ref[Row]] = []

    @property
    def ids(self) -> list[str]:
        return list(self.statuses)

    async def read(self, statement: Any) -> list[Row]:
        asked = next(value for value in statement.compile().params.values() if not isinstance(value, int))
        rows = [Row(uid=uid, status=status) for uid, status in self.statuses.items() if uid in asked]
        self.rows += map(weakref.ref, rows)
        self.reads.append(len(rows))
        return rows


async def turns() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def begun(
    tasks: Tasks, waiting: Waiting, seconds: float = 30, *, for_all: bool = True
) -> "asyncio.Task[tuple[list[Any], bool]]":
    waits = TaskWaits(SimpleNamespace(read=tasks.read), waiting)  # type: ignore[arg-type]
    return asyncio.create_task(waits.wait(1, tasks.ids, seconds, for_all=for_all))


def statuses(rows: list[Any]) -> list[str]:
    return [row["status"] for row in rows]


async def test_no_row_is_held_while_it_waits() -> None:
    tasks, waiting = Tasks(3), Waiting()
    gc.disable()
    try:
        wait = begun(tasks, waiting)
        await turns()
        waiting.wake(tasks.ids[0])
        await turns()
        assert tasks.reads == [3, 3, 1]
        assert [row() for row in tasks.rows] == [None] * 7
    finally:
        gc.enable()
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    assert not waiting.watched.is_set()


async def test_the_answer_has_all_tasks_as_they_are_when_the_last_has_ended() -> None:
    tasks, waiting = Tasks(3), Waiting()
    wait = begun(tasks, waiting)
    await turns()
    for uid in tasks.ids:
        assert not wait.done()
        tasks.statuses[uid] = "completed"
        waiting.wake(uid)
        await turns()
    rows, is_over = await wait
    assert ([row["uid"] for row in rows], is_over) == (tasks.ids, True)
    assert tasks.reads == [3, 3, 1, 1, 1, 3]


async def test_a_task_that_is_retried_after_its_end_has_not_ended() -> None:
    tasks, waiting = Tasks(2), Waiting()
    wait, (first, second) = begun(tasks, waiting), tasks.ids
    await turns()
    for uid, status in ((first, "failed"), (first, "pending"), (second, "completed")):
        tasks.statuses[uid] = status
        waiting.wake(uid)
        await turns()
    assert not wait.done()
    tasks.statuses[first] = "completed"
    waiting.wake(first)
    assert (await wait)[1]


async def test_one_that_is_retried_before_all_are_read_for_the_answer_is_waited_for_on() -> None:
    tasks, waiting = Tasks(2), Waiting()
    wait, (first, second) = begun(tasks, waiting), tasks.ids
    await turns()
    tasks.statuses[first] = "failed"
    waiting.wake(first)
    await turns()
    tasks.statuses[first] = "pending"  # and its wake comes after that of the other
    tasks.statuses[second] = "completed"
    waiting.wake(second)
    await turns()
    assert not wait.done()
    tasks.statuses[first] = "completed"
    waiting.wake(first)
    assert statuses((await wait)[0]) == ["completed", "completed"]


async def test_any_that_ends_is_enough_where_any_is_waited_for() -> None:
    tasks, waiting = Tasks(2), Waiting()
    wait = begun(tasks, waiting, for_all=False)
    await turns()
    tasks.statuses[tasks.ids[1]] = "failed"
    waiting.wake(tasks.ids[1])
    rows, is_over = await wait
    assert (statuses(rows), is_over) == (["pending", "failed"], True)


@pytest.mark.parametrize("for_all", [True, False])
async def test_when_the_time_is_up_or_the_service_stops_all_are_told_as_they_are(for_all: bool) -> None:
    tasks, waiting = Tasks(2), Waiting()
    rows, is_over = await begun(tasks, waiting, 0.02, for_all=for_all)
    assert (statuses(rows), is_over) == (["pending", "pending"], False)
    wait = begun(tasks, waiting, for_all=for_all)
    await turns()
    tasks.reads.clear()
    waiting.close()
    rows, is_over = await wait
    assert (statuses(rows), is_over, tasks.reads) == (["pending", "pending"], False, [2])


async def test_one_that_is_purged_meanwhile_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_commit, "_REREAD_SECONDS", 0.02)
    tasks, waiting = Tasks(2), Waiting()
    wait, (first, second) = begun(tasks, waiting), tasks.ids
    await turns()
    del tasks.statuses[first]
    tasks.statuses[second] = "completed"
    rows, is_over = await wait
    assert ([row["uid"] for row in rows], is_over) == ([second], True)
