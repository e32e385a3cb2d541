"""What the tests of batches that are tried without locks write, count and break off."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select

from models import SubscriptionKind
from receiver.storage.database import Database
from receiver.storage.optimistic import may_be_optimistic
from receiver.storage.tables import tasks
from receiver.storage.transaction import (
    Listener,
    NewDelivery,
    Settlement,
    TaskChange,
    Transaction,
)
from receiver.telemetry.metrics import optimistic_batches
from tests.storage.rows import (
    add_subscription,
    add_tasks,
    new_delivery,
    new_event,
    task_row,
)


class Steps:
    """A handler that adds 1 to the progress of tasks, with an event and its deliveries, as an update does."""

    def __init__(self) -> None:
        self.calls = 0
        self.published: list[tuple[int, str]] = []
        self.delivered: list[tuple[int, int]] = []
        self.again = asyncio.Event()
        """Set when it is called a second time."""
        self.read = asyncio.Event()
        """Set when the tasks were read for the first time."""
        self.go_on = asyncio.Event()
        self.go_on.set()

    @may_be_optimistic
    async def step(self, tx: Transaction, uids: Sequence[str]) -> list[int | Exception]:
        self.calls += 1
        if self.calls > 1:
            self.again.set()
        found = await tx.load_tasks(set(uids))
        self.read.set()
        await self.go_on.wait()
        changes: dict[int, TaskChange] = {}
        new = []
        results: list[int | Exception] = []
        for uid in uids:
            task = found[uid]
            task.progress += 1
            change = changes.setdefault(task.id, TaskChange(task.id, task.status, task.attempt))
            change.values["progress"] = task.progress
            if task.progress % 3 == 0:  # of other columns than the rest
                change.values["output"] = {"at": task.progress}
            snapshot = {"progress": task.progress}
            new.append(new_event(task.id, task_uid=uid, snapshot=snapshot, callback_id=task.callback_id))
            results.append(task.progress)
        await tx.update_tasks(list(changes.values()))
        callbacks = {event.callback_id for event in new if event.callback_id is not None}
        keys, listeners = await tx.append_events(new, {event.organization_id for event in new}, callbacks)
        rows = [
            new_delivery(each.id, key, event.task_id, attempt=1)
            for key, event in zip(keys, new, strict=True)
            for each in listeners
            if _is_for(each, event.callback_id)
        ]
        of_rows = await tx.insert_deliveries(rows) if rows else []
        tx.after_commit.append(lambda: self._follow(keys, [event.uid for event in new], of_rows, rows))
        return results

    def _follow(self, keys: list[int], uids: list[str], of_rows: list[int], rows: list[NewDelivery]) -> None:
        self.published += zip(keys, uids, strict=True)
        self.delivered += zip(of_rows, [row.subscription_id for row in rows], strict=True)


def _is_for(listener: Listener, callback_id: int | None) -> bool:
    return listener.kind == SubscriptionKind.REGISTERED or listener.id == callback_id


@may_be_optimistic
async def settle(tx: Transaction, settlements: Sequence[Settlement]) -> Sequence[bool | Exception]:
    held = await tx.settle(settlements)
    assert await tx.failing({each.subscription_id for each in settlements}) in (set(), {1})
    return list(held)


def counts() -> dict[str, float]:
    """How many batches had each outcome until now."""
    outcomes = ("stored", "needs more", "changed", "conflict", "resting")
    return {name: optimistic_batches.labels(name)._value.get() for name in outcomes}


@contextmanager
def counted(**expected: int) -> Iterator[None]:
    """Expect these outcomes, and no others."""
    before = counts()
    yield
    difference = {name.replace(" ", "_"): count - before[name] for name, count in counts().items()}
    assert {name: count for name, count in difference.items() if count} == expected


async def progress_of(database: Database, uid: str) -> int:
    (row,) = await database.read(select(tasks.c.progress).where(tasks.c.uid == uid))
    return int(row["progress"])


async def new_task(database: Database, **fields: Any) -> str:
    row = task_row(**fields)
    await add_tasks(database, row)
    return str(row["uid"])


async def pending(database: Database, count: int = 2) -> tuple[int, list[int]]:
    """Insert deliveries that are leased; return their subscription and their row keys."""
    (task,) = await add_tasks(database, task_row())
    subscription = await add_subscription(database)
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(task)]))
    rows = [new_delivery(subscription, event, task, attempt=1) for _ in range(count)]
    return subscription, await database.writer.run(lambda tx: tx.insert_deliveries(rows))
