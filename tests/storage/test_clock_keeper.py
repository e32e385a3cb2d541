"""The service's clock: what anchors it on each database, and what happens when another clock jumps."""

import time
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from receiver.clock import AnchoredClock
from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.tables import deliveries, idempotency_keys, tasks
from receiver.telemetry.metrics import clock_jumps
from receiver.workers.clock_keeper import ClockKeeper
from tests.storage.rows import add_organization, add_subscription, add_tasks, new_delivery, new_event, task_row

LEASE = 60.0
HOUR = 3600.0
NEAR = timedelta(seconds=20)
"""How long a step of a test may take on a busy machine."""


class Wall:
    """A wall clock that the test steps."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return time.time() + self.ahead


def keeper_of(database: Database, clock: AnchoredClock, wall: Wall) -> ClockKeeper:
    return ClockKeeper(database, longest_lease=LEASE, clock=clock, wall=wall)


def ahead(clock: AnchoredClock) -> float:
    """Return how far the clock is ahead of the machine's."""
    return clock.now() - time.time()


def jumps(clock: str, direction: str) -> float:
    return float(clock_jumps.labels(clock, direction)._value.get())


def present() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


@pytest.mark.postgresql_only("SQLite has no clock of its own")
async def test_a_replica_whose_wall_clock_is_wrong_has_the_databases_time(
    database: Database, logged: list[MutableMapping[str, Any]]
) -> None:
    clock = AnchoredClock(0.0)
    await keeper_of(database, clock, Wall(900)).begin()
    assert abs(ahead(clock)) < 1
    assert (logged[-1]["event"], logged[-1]["seconds"]) == (
        "wall clock differs from the database's",
        pytest.approx(900, abs=1),
    )


@pytest.mark.sqlite_only("PostgreSQL has a clock of its own")
async def test_on_sqlite_the_service_begins_with_the_wall_clock(database: Database) -> None:
    clock = AnchoredClock(0.0)
    await keeper_of(database, clock, Wall(900)).begin()
    assert ahead(clock) == pytest.approx(900, abs=1)


async def test_a_jump_of_the_wall_clock_is_logged_and_counted_once_and_moves_nothing(
    database: Database, logged: list[MutableMapping[str, Any]]
) -> None:
    clock, wall = AnchoredClock(0.0), Wall()
    keeper = keeper_of(database, clock, wall)
    await keeper.begin()
    for step, direction in ((HOUR, "forward"), (-HOUR, "back")):
        before = jumps("wall", direction)
        logged.clear()
        wall.ahead += step
        for _ in range(3):
            await keeper.compare()
        assert abs(ahead(clock)) < 1
        assert jumps("wall", direction) == before + 1
        (entry,) = logged
        assert (entry["event"], entry["clock"], entry["direction"]) == ("clock jumped", "wall", direction)
        assert entry["seconds"] == pytest.approx(HOUR, abs=1)


@pytest.mark.postgresql_only("SQLite has no clock of its own")
async def test_a_jump_of_the_databases_clock_is_followed_at_once_and_then_nothing_waits_longer(
    database: Database,
) -> None:
    clock = AnchoredClock(0.0)
    keeper = keeper_of(database, clock, Wall())
    await keeper.begin()
    for step, direction in ((HOUR, "forward"), (-HOUR, "back")):
        before = jumps("database", direction)
        clock.set(clock.now() - step)  # as if the database's clock had jumped by it
        if direction == "back":
            await fill(database, datetime.fromtimestamp(clock.now(), UTC))
        keeper._measure_at = 0.0
        await keeper.compare()
        assert abs(ahead(clock)) < 1
        assert jumps("database", direction) == before + 1
    waiting, leased, *_ = await due(database, tasks)
    assert abs(waiting - present()) < NEAR
    assert abs(leased - present() - timedelta(seconds=LEASE)) < NEAR


async def test_a_start_after_a_step_back_finds_what_would_wait_an_hour_longer(database: Database) -> None:
    keeper = keeper_of(database, AnchoredClock(0.0), Wall())
    await fill(database, present())
    before = await due(database, tasks), await due(database, deliveries)
    await keeper.begin()
    assert (await due(database, tasks), await due(database, deliveries)) == before  # an ordinary start
    started = present()
    await fill(database, started + timedelta(hours=1))
    await keeper.begin()
    waiting, leased, past, ended = (await due(database, tasks))[4:]
    assert abs(waiting - started) < NEAR
    assert abs(leased - started - timedelta(seconds=LEASE)) < NEAR
    assert past == started - timedelta(hours=23)
    assert ended is None
    assert abs((await due(database, deliveries))[1] - started) < NEAR
    rows = await database.read(select(idempotency_keys.c.lease_until))
    assert all(row["lease_until"] < started + timedelta(seconds=LEASE) + NEAR for row in rows)


async def due(database: Database, table: Any) -> list[datetime]:
    return [row["due_at"] for row in await database.read(select(table.c.due_at).order_by(table.c.id))]


async def fill(database: Database, at: datetime) -> None:
    """Insert an event of the time `at`, and rows that are due later than that, some of them leased."""
    await add_organization(database)
    later = at + timedelta(minutes=10)
    keys = await add_tasks(
        database,
        task_row(due_at=later),
        task_row(due_at=later, leased=True),
        task_row(due_at=at - timedelta(days=1)),
        task_row(due_at=None),
    )
    subscription = await add_subscription(database)
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(keys[0], created_at=at)]))
    delivery = new_delivery(subscription, event, keys[0], due_at=later)
    await database.writer.run(lambda tx: tx.insert_deliveries([delivery]))
    ids = {"scope": new_id(), "resource_id": new_id(), "owner": new_id()}
    claim = {"body": "b", "created_at": at, "lease_until": later, **ids}
    await database.writer.run(lambda tx: tx.execute(insert(idempotency_keys).values(claim)))
