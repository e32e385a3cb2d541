"""A subscription as a report judges it: from when on its present settings tell what it receives."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, or_, select

from models import SubscriptionKind
from receiver.storage.report.window import ReportWindow
from receiver.storage.tables import subscriptions

SETTLED_AFTER = timedelta(seconds=10)
"""For so long after a change of a subscription, events may have been matched with the settings before: a transaction of
another process that began before the change may commit after it, and the clocks of processes differ a little."""


class ReportedWebhook(Struct, frozen=True):
    """A registered subscription, as it is now. `changed_at` is its last change of any kind, or its registration."""

    key: int
    uid: str
    endpoint_url: str
    event_types: frozenset[str]
    filters: Mapping[str, Any] | None
    is_active: bool
    created_at: datetime
    changed_at: datetime
    deleted_at: datetime | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "ReportedWebhook":
        """Return the webhook of a row of `webhooks_of`."""
        return cls(
            key=row["id"],
            uid=row["uid"],
            endpoint_url=row["endpoint_url"],
            event_types=frozenset(row["event_types"]),
            filters=row["filters"],
            is_active=row["is_active"],
            created_at=row["created_at"],
            changed_at=max(row["created_at"], row["updated_at"]),
            deleted_at=row["deleted_at"],
        )

    @property
    def settled_at(self) -> datetime:
        """From when on the present settings decide what it receives."""
        return self.changed_at + SETTLED_AFTER

    @property
    def state(self) -> str:
        """`active`, `switched_off` or `removed`."""
        if self.deleted_at is not None:
            return "removed"
        return "active" if self.is_active else "switched_off"

    @property
    def compares_metadata(self) -> bool:
        """Whether one of its filters is about metadata."""
        return "metadata" in (self.filters or {})

    @property
    def compares_runs(self) -> bool:
        """Whether one of its filters is about runs."""
        return "run_id" in (self.filters or {})


def webhooks_of(window: ReportWindow) -> Select[Any]:
    """Return the query for the registered subscriptions that existed in a window, removed ones too, oldest first."""
    table = subscriptions.c
    columns = (table.id, table.uid, table.endpoint_url, table.event_types, table.filters, table.is_active)
    return (
        select(*columns, table.created_at, table.updated_at, table.deleted_at)
        .where(
            table.organization_id == window.organization_id,
            table.kind == SubscriptionKind.REGISTERED,
            or_(table.deleted_at.is_(None), table.deleted_at >= window.since),
        )
        .order_by(table.id)
    )


def any_callback(organization_id: int) -> Select[Any]:
    """Return the query for one client's own callback of an organization; without a row if it has none."""
    table = subscriptions.c
    is_callback = (table.organization_id == organization_id, table.kind == SubscriptionKind.CALLBACK)
    return select(table.id).where(*is_callback).limit(1)
