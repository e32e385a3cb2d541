"""Rows of tasks by their keys: whole, without the documents of large ones, and many of them in one query."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from models import Submission
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.errors import StorageUnavailable
from receiver.storage.database import Database
from receiver.storage.hot import HotQuery, HotRow
from receiver.storage.large_rows import SMALL_BYTES
from receiver.storage.organizations import ensure_organization
from receiver.storage.task_rows import TaskRows
from receiver.storage.tasks import new_task, task_by_id
from receiver.storage.transaction import Transaction


async def insert(database: Database, *inputs: Any) -> dict[int, str]:
    """Insert a task with each input; return their ids by their row keys."""
    uids = [new_id() for _ in inputs]

    async def work(tx: Transaction) -> list[int]:
        organization = await ensure_organization(tx, "default", utc_now())
        rows = [
            new_task(
                uid=uid,
                organization_id=organization,
                provider="piapi",
                model="flux",
                task_type="txt2img",
                input=given,
                submission=Submission.WAITING,
                now=utc_now(),
            )
            for uid, given in zip(uids, inputs, strict=True)
        ]
        return await tx.insert_tasks(rows)

    return dict(zip(await database.writer.run(work), uids, strict=True))


async def test_a_row_has_what_the_query_by_id_has(database: Database) -> None:
    ((key, uid),) = (await insert(database, {"prompt": "a cat"})).items()
    (wanted,) = await database.read(task_by_id(1, uid))
    assert await TaskRows(database).read(key) == wanted


async def test_a_large_task_comes_without_its_documents(database: Database) -> None:
    ((key, uid),) = (await insert(database, {"prompt": "x" * SMALL_BYTES})).items()
    row = await TaskRows(database).read(key)
    assert row is not None
    assert (row["uid"], row["input"], row["stored_bytes"] > SMALL_BYTES) == (uid, None, True)


async def test_no_row_has_an_unknown_key(database: Database) -> None:
    assert await TaskRows(database).read(1_000_000) is None


async def test_rows_that_are_asked_for_during_a_query_are_read_with_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await insert(database, *({"number": number} for number in range(4)))
    asked: list[set[int]] = []
    has_begun, goes_on = asyncio.Event(), asyncio.Event()
    read_by_keys = database.read_by_keys

    async def counting(query: HotQuery, of: Collection[int]) -> list[HotRow]:
        asked.append(set(of))
        has_begun.set()
        await goes_on.wait()
        return await read_by_keys(query, of)

    monkeypatch.setattr(database, "read_by_keys", counting)
    rows, (first, *others) = TaskRows(database), keys
    reading = [asyncio.create_task(rows.read(first))]
    await has_begun.wait()
    reading += [asyncio.create_task(rows.read(key)) for key in [first, *others, *others]]
    await asyncio.sleep(0)
    goes_on.set()
    found = await asyncio.gather(*reading)
    assert asked == [{first}, set(keys)]  # also the first again: it may have changed since the query began
    assert [row["uid"] for row in found if row] == [keys[key] for key in [first, first, *others, *others]]


async def test_others_have_turns_while_many_rows_are_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = await insert(database, *({"number": number} for number in range(50)))
    sizes: list[int] = []
    turns: list[int] = []
    read_by_keys = database.read_by_keys

    async def counting(query: HotQuery, of: Collection[int]) -> list[HotRow]:
        sizes.append(len(of))
        asyncio.get_running_loop().call_soon(turns.append, len(sizes))
        return await read_by_keys(query, of)

    monkeypatch.setattr(database, "read_by_keys", counting)
    rows = TaskRows(database)
    found = await asyncio.gather(*(rows.read(key) for key in keys))
    assert [row["uid"] for row in found if row] == list(keys.values())
    assert sizes == [20, 20, 10]
    assert turns[:2] == [1, 2]


async def test_a_query_that_fails_fails_for_all_who_wait_and_for_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = await insert(database, {})
    rows = TaskRows(database)

    async def failing(_query: HotQuery, _keys: Collection[int]) -> list[HotRow]:
        raise StorageUnavailable("the database cannot be read at present; try again")

    with monkeypatch.context() as patching:
        patching.setattr(database, "read_by_keys", failing)
        outcomes = await asyncio.gather(rows.read(key), rows.read(key), return_exceptions=True)
    assert [type(each) for each in outcomes] == [StorageUnavailable] * 2
    assert await rows.read(key) is not None


async def test_a_query_that_the_driver_breaks_off_leaves_none_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await insert(database, {}, {})
    rows = TaskRows(database)
    has_begun, goes_on = asyncio.Event(), asyncio.Event()

    async def broken_off(_query: HotQuery, _keys: Collection[int]) -> list[HotRow]:
        has_begun.set()
        await goes_on.wait()
        raise asyncio.CancelledError

    with monkeypatch.context() as patching:
        patching.setattr(database, "read_by_keys", broken_off)
        reading = [asyncio.create_task(rows.read(first))]
        await has_begun.wait()
        reading.append(asyncio.create_task(rows.read(second)))
        await asyncio.sleep(0)
        goes_on.set()
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*reading, return_exceptions=True)
    assert [type(each) for each in outcomes] == [StorageUnavailable] * 2
    assert await rows.read(second) is not None
