"""Rows for the storage tests, with defaults for all that a test does not name."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, inspect, select
from sqlmodel import SQLModel

import models
from models import DeliveryStatus, EventType, SubscriptionKind
from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.organizations import ensure_organization
from receiver.storage.tables import subscriptions, tasks
from receiver.storage.transaction import NewDelivery, NewEvent, Settlement

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def row_of(instance: SQLModel) -> dict[str, Any]:
    """Return the columns of a table's row, without its row key."""
    columns = inspect(type(instance)).column_attrs
    return {each.columns[0].name: getattr(instance, each.key) for each in columns if each.key != "id"}


def task_row(**fields: Any) -> dict[str, Any]:
    """Return a task's row; columns that are not given are as in a new task. One that ended last changed then.

    It is whole but for `stored_bytes`, which is counted when it is inserted.
    """
    given: dict[str, Any] = {
        "uid": new_id(),
        "organization_id": 1,
        "provider": "piapi",
        "model": "flux",
        "task_type": "txt2img",
        "created_at": NOW,
        "updated_at": fields.get("ended_at") or NOW,
        "last_update_at": NOW,
        **fields,
    }
    # The model's field is `metadata_`, because SQLModel classes have an attribute `metadata` already.
    row = row_of(models.Task(**given, metadata_=given.pop("metadata", None)))
    del row["stored_bytes"]
    return row


async def add_organization(database: Database, name: str = "default") -> int:
    """Insert an organization; return its row key, which is 1 for the first."""
    return await database.writer.run(lambda tx: ensure_organization(tx, name, NOW))


async def add_tasks(database: Database, *rows: Mapping[str, Any]) -> list[int]:
    """Insert tasks; return their row keys."""
    return await database.writer.run(lambda tx: tx.insert_tasks(rows))


def subscription_row(**fields: Any) -> dict[str, Any]:
    """Return a subscription's row, by default of one that is registered for every event."""
    given: dict[str, Any] = {
        "uid": new_id(),
        "organization_id": 1,
        "kind": SubscriptionKind.REGISTERED,
        "endpoint_url": "https://example.com/webhooks",
        "event_types": list(EventType),
        "created_at": NOW,
        "updated_at": NOW,
        **fields,
    }
    return row_of(models.Subscription(**given))


async def add_subscriptions(database: Database, count: int, **fields: Any) -> list[int]:
    """Insert subscriptions, all with these columns; return their row keys in order."""
    rows = [subscription_row(**fields) for _ in range(count)]
    await database.writer.run(lambda tx: tx.execute(insert(subscriptions), rows))
    wanted = subscriptions.c.uid.in_([row["uid"] for row in rows])
    return [row["id"] for row in await database.read(select(subscriptions.c.id).where(wanted).order_by("id"))]


async def add_subscription(database: Database, **fields: Any) -> int:
    """Insert a subscription; return its row key."""
    (key,) = await add_subscriptions(database, 1, **fields)
    return key


def new_event(task_id: int | None, **fields: Any) -> NewEvent:
    """Return an event of a task."""
    given: dict[str, Any] = {
        "uid": new_id(),
        "organization_id": 1,
        "task_id": task_id,
        "task_uid": "",
        "type": EventType.TASK_UPDATED,
        "snapshot": {"status": "processing"},
        "created_at": NOW,
        **fields,
    }
    return NewEvent(**given)


def new_delivery(subscription_id: int, event_id: int, task_id: int | None, **fields: Any) -> NewDelivery:
    """Return a delivery that is due now and not leased."""
    given: dict[str, Any] = {
        "uid": new_id(),
        "organization_id": 1,
        "subscription_id": subscription_id,
        "event_id": event_id,
        "task_id": task_id,
        "attempt": 0,
        "due_at": NOW,
        "created_at": NOW,
        **fields,
    }
    return NewDelivery(**given)


def new_settlement(delivery_id: int, subscription_id: int, **fields: Any) -> Settlement:
    """Return the settlement of a delivery whose first attempt succeeded."""
    given: dict[str, Any] = {
        "delivery_id": delivery_id,
        "subscription_id": subscription_id,
        "attempt": 1,
        "status": DeliveryStatus.DELIVERED,
        "due_at": None,
        "settled_at": NOW,
        "started_at": NOW,
        "duration_ms": 1,
        "status_code": 200,
        "error": None,
        "response": "",
        **fields,
    }
    return Settlement(**given)


async def task_by_key(database: Database, key: int) -> dict[str, Any]:
    """Return a task's row, read through SQLAlchemy."""
    (row,) = await database.read(select(tasks).where(tasks.c.id == key))
    return row
