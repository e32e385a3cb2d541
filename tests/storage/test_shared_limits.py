"""The limits that processes on one PostgreSQL share: what each of them learns of the others, and what that costs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from receiver.api.limits import KeyLimit, KeyLimits
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.postgresql import SharedLimits
from receiver.storage.postgresql.raw_connection import RawConnection
from receiver.storage.transaction import Transaction
from tests.fakes.databases import settings_in

pytestmark = pytest.mark.postgresql_only("SQLite has one process")


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[list[Database]]:
    """Two databases on one server: as of two processes, each with its writer connected."""
    settings = settings_in(tmp_path)
    async with AsyncExitStack() as stack:
        opened = [await _opened(stack, settings) for _ in range(2)]
        yield opened


async def _opened(stack: AsyncExitStack, settings: Settings) -> Database:
    database = await stack.enter_async_context(await Database.open(settings))
    await run(database, "SELECT 1")
    return database


async def run(database: Database, statement: str, **values: Any) -> None:
    async def work(tx: Transaction) -> None:
        await tx.execute(text(statement).bindparams(**values))

    await database.writer.run(work)


def limits(database: Database) -> SharedLimits:
    assert database.shared is not None
    return database.shared.limits


async def settled(processes: list[Database], wanted: list[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the parts of each process after three exchanges in which it wants this much of each limit."""
    for _ in range(3):
        for database, wants in zip(processes, wanted, strict=True):
            for name, want in wants.items():
                limits(database).part(name, want)
            await limits(database).exchange()
    return [
        {name: limits(database).part(name, want) for name, want in wants.items()}
        for database, wants in zip(processes, wanted, strict=True)
    ]


async def test_each_process_takes_the_part_that_it_wants_of_all_its_limits(processes: list[Database]) -> None:
    one, other = await settled(processes, [{"key:1": 30, "key:2": 5}, {"key:1": 10, "webhook-rate:2": 1}])
    assert one == {"key:1": pytest.approx(0.9 * 0.75 + 0.05), "key:2": 1.0}
    assert other == {"key:1": pytest.approx(0.9 * 0.25 + 0.05), "webhook-rate:2": 1.0}


async def test_a_process_begins_with_an_equal_part_of_all_live_ones(processes: list[Database]) -> None:
    await limits(processes[0]).exchange()
    assert limits(processes[0]).part("key:1", 100) == 0.5


async def test_rows_that_are_old_or_of_a_later_time_say_nothing_and_are_purged(processes: list[Database]) -> None:
    one, other = processes
    await settled(processes, [{"key:1": 10}, {"key:1": 10}])
    for days in (-1, 1):
        await run(one, "UPDATE limit_use SET at = now() + make_interval(days => :days)", days=days)
        await limits(one).exchange()
        assert limits(one).part("key:1", 10) == 1.0
    await run(other, "UPDATE limit_use SET at = at + interval '1 day'")
    await limits(one).purge()
    assert await other.read(text("SELECT name FROM limit_use")) == []


async def test_the_same_name_in_another_database_is_another_limit(processes: list[Database], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with await Database.open(settings_in(tmp_path / "other")) as apart:
        await run(apart, "SELECT 1")
        parts = await settled([processes[0], apart], [{"key:1": 10}, {"key:1": 10}])
    assert parts == [{"key:1": 1.0}, {"key:1": 1.0}]


@pytest.mark.parametrize("rates", [(200, 200), (200, 20), (200, 0)], ids=["both busy", "one busier", "one idle"])
async def test_a_key_gets_its_rate_over_two_processes(tmp_path: Path, rates: tuple[int, int]) -> None:
    """Both allow 50 a second together, whatever each of them gets, on a clock that the test moves."""
    settings, now, allowed = settings_in(tmp_path), 1000.0, 0
    connections = [RawConnection(settings.database_url, writes=True) for _ in rates]
    shared = [SharedLimits(connection, lambda: now) for connection in connections]
    keys = [KeyLimits(KeyLimit.of(50), lambda: round(now * 1e9), each.part) for each in shared]
    for second in range(10):
        for step in range(100):
            for key, rate in zip(keys, rates, strict=True):
                for _ in range(rate * (step + 1) // 100 - rate * step // 100):
                    allowed += key.take(1, None).retry_after is None and second >= 4
            now += 0.01
        for each in shared:
            await each.exchange()
    for connection in connections:
        await connection.aclose()
    assert 6 * 50 * 0.9 <= allowed <= 6 * 50 * 1.1
