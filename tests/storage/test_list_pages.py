"""Pages of deliveries, runs and events: what a look at every row says, and that an index serves rare ones."""

import random
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Select, insert, select

from models import DeliveryStatus, EventType
from receiver.domain.ids import first_id_at
from receiver.settings import Settings
from receiver.storage.audit import AuditFilter, audit_entries_matching
from receiver.storage.database import Database
from receiver.storage.deliveries import DeliveryFilter, deliveries_matching, page_of_deliveries
from receiver.storage.events import EventFilter, events_before
from receiver.storage.tables import deliveries
from receiver.storage.task_page import page_of_tasks
from receiver.storage.tasks import TaskFilter
from tests.storage.rows import NOW, add_organization, add_subscription, add_tasks, new_event, task_row
from tests.storage.test_task_lists import explained

STATES = (DeliveryStatus.DELIVERED, DeliveryStatus.DEAD, DeliveryStatus.CANCELLED, DeliveryStatus.PENDING)


async def fill(database: Database, count: int) -> list[dict[str, Any]]:
    """Insert deliveries, an hour after each other; of the pending ones some wait for their subscription."""
    rng, rows = random.Random(count), []
    for name in ("default", "another"):
        await add_organization(database, name)
    subscriptions = [await add_subscription(database), await add_subscription(database, organization_id=2)]
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(None)]))
    for number in range(count):
        at, status, whose = NOW + timedelta(hours=number), rng.choice(STATES), rng.choice((0, 0, 0, 1))
        is_due = status == DeliveryStatus.PENDING and rng.random() < 0.5
        rows.append(
            {
                "uid": f"{first_id_at(at)[:24]}{number:012x}",
                "organization_id": whose + 1,
                "subscription_id": subscriptions[whose],
                "event_id": event,
                "status": status,
                "due_at": at if is_due else None,
                "attempt": 0,
                "schedule_from": 0,
                "leased": False,
                "created_at": at,
            }
        )
    await database.writer.run(lambda tx: tx.execute(insert(deliveries), rows))
    return list(await database.read(select(deliveries)))


@pytest.mark.parametrize("few", [1000, 2])
async def test_a_page_of_deliveries_is_what_a_look_at_every_one_says(
    database: Database, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr("receiver.storage.deliveries.FEW", few)
    rows = await fill(database, 60)
    times = (None, *(NOW + timedelta(hours=hours) for hours in (10, 40)))
    for organization_id in (1, 2):
        for status in (None, *STATES):
            for after, before in product(times, times):
                wanted = DeliveryFilter(
                    organization_id=organization_id, status=status, created_after=after, created_before=before
                )
                found = await database.read(await page_of_deliveries(database.read, wanted, 5))
                expected = [
                    row["id"]
                    for row in reversed(rows)
                    if row["organization_id"] == organization_id
                    and status in (None, row["status"])
                    and (after is None or row["created_at"] > after)
                    and (before is None or row["created_at"] < before)
                ]
                assert [row["id"] for row in found] == expected[:5]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (deliveries_matching(DeliveryFilter(organization_id=1, status=DeliveryStatus.DEAD), 50), "undelivered"),
        (events_before(EventFilter(organization_id=1, types=frozenset([EventType.RUN_FAILED])), None, 50), "rare_type"),
        (audit_entries_matching(AuditFilter(organization_id=1, target="x"), 50), "ix_audit_entry_target"),
    ],
    ids=["deliveries", "events", "audit"],
)
async def test_an_index_serves_what_is_rare(
    database: Database, settings: Settings, query: Select[Any], index: str
) -> None:
    await fill(database, 400)
    many = [new_event(None, type=EventType.TASK_UPDATED) for _ in range(2000)]
    await database.writer.run(lambda tx: tx.insert_events(many))
    plan = await explained(database, query, is_sqlite=settings.is_sqlite)
    assert index in plan, plan


@pytest.mark.sqlite_only("the words of its plans")
async def test_a_page_of_all_tasks_is_not_sorted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.storage.task_page.FEW", 4)
    await add_organization(database)
    await add_tasks(database, *(task_row() for _ in range(20)))
    query = await page_of_tasks(database.read, TaskFilter(organization_id=1), 5)
    plan = await explained(database, query, is_sqlite=True)
    assert ("TEMP B-TREE" in plan, "SCAN task" in plan) == (False, True), plan
