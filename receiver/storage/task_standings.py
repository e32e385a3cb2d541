"""How far several tasks are: a few columns of each, without documents."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, select

from receiver.storage.tables import tasks

_STANDING = [
    tasks.c[name]
    for name in ("uid", "provider_task_id", "status", "progress", "attempt", "created_at", "updated_at", "ended_at")
]


def standings_of(organization_id: int, uids: Collection[str]) -> Select[Any]:
    """Return the query for how far these tasks of the organization are, by Ringback's ids."""
    return select(*_STANDING).where(tasks.c.organization_id == organization_id, tasks.c.uid.in_(uids))


def standings_by_provider_ids(organization_id: int, provider_task_ids: Collection[str]) -> Select[Any]:
    """Return the query for how far these tasks of the organization are, by the provider's ids, the oldest first."""
    has_id = tasks.c.provider_task_id.in_(provider_task_ids)
    return select(*_STANDING).where(tasks.c.organization_id == organization_id, has_id).order_by(tasks.c.id)
