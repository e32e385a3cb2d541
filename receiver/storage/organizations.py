"""Organizations: their rows, the limits that the operator set for them, and counts of what they use."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, insert, select, update

from models import TERMINAL, ReplayStatus, SubscriptionKind, TaskStatus
from receiver.domain.ids import new_id
from receiver.storage.bounded_count import count_up_to
from receiver.storage.idempotency import KEPT
from receiver.storage.tables import idempotency_keys, organizations, replays, subscriptions, tasks
from receiver.storage.transaction import Transaction, Values

DEFAULT_ORGANIZATION = "default"
"""The operator's organization, there from the first start."""
_OPEN = [status for status in TaskStatus if status not in TERMINAL]


async def ensure_organization(tx: Transaction, name: str, now: datetime) -> int:
    """Return the row key of the organization of this name, and lock its row; insert it if it does not exist."""
    wanted = select(organizations.c.id).where(organizations.c.name == name).with_for_update()
    if not (found := await tx.execute(wanted)):
        row = {"uid": new_id(), "name": name, "owns_provider_account": name == DEFAULT_ORGANIZATION, "created_at": now}
        await tx.execute(insert(organizations), [row])
        found = await tx.execute(wanted)
    return int(found[0][0])


async def insert_organization(tx: Transaction, values: Values) -> int | None:
    """Insert one organization; return its row key, or None without a change if there is one of its name.

    Two at the same time wait for each other: the row of `default` is locked first.
    """
    await tx.execute(
        select(organizations.c.id).where(organizations.c.name == DEFAULT_ORGANIZATION).with_for_update(key_share=True),
    )
    if await tx.execute(select(organizations.c.id).where(organizations.c.name == values["name"])):
        return None
    added = await tx.execute(insert(organizations).values(**values).returning(organizations.c.id))
    tx.leaves(lambda: select(organizations.c.id).where(organizations.c.uid == values["uid"]), is_lasting=True)
    return int(added[0][0])


async def change_organization(
    tx: Transaction, uid: str, limits: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Change limits of one organization, None to have the default again, and other columns.

    Return its row as it was and as it is. It must exist: organizations are never deleted.
    """
    (found,) = await tx.execute(select(organizations).where(organizations.c.uid == uid).with_for_update(key_share=True))
    was = dict(found._mapping)
    merged = {**(was["limits"] or {}), **limits}
    changed = {**values, "limits": {name: value for name, value in merged.items() if value is not None} or None}
    await tx.execute(update(organizations).where(organizations.c.uid == uid).values(**changed))
    return was, {**was, **changed}


def organization_by_id(uid: str) -> Select[Any]:
    """Return the query for one organization."""
    return select(organizations).where(organizations.c.uid == uid)


def organization_by_key(organization_id: int) -> Select[Any]:
    """Return the query for the organization with this row key."""
    return select(organizations).where(organizations.c.id == organization_id)


def organization_by_name(name: str) -> Select[Any]:
    """Return the query for the organization with this name."""
    return select(organizations).where(organizations.c.name == name)


def organizations_page(limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of organizations, newest first."""
    query = select(organizations).order_by(organizations.c.id.desc()).limit(limit)
    return query if before is None else query.where(organizations.c.id < before)


def account_owners() -> Select[Any]:
    """Return the query for the row keys of the organizations that own the provider account."""
    return select(organizations.c.id).where(organizations.c.owns_provider_account).order_by(organizations.c.id)


def operators() -> Select[Any]:
    """Return the query for the row key of the operator's organization."""
    return select(organizations.c.id).where(organizations.c.name == DEFAULT_ORGANIZATION)


def set_limits() -> Select[Any]:
    """Return the query for (id, uid, limits) of the organizations that have limits of their own."""
    wanted = (organizations.c.id, organizations.c.uid, organizations.c.limits)
    return select(*wanted).where(organizations.c.limits.is_not(None))


def count_webhooks(organization_id: int, most: int) -> Select[Any]:
    """Return the query that counts the webhooks of an organization that are not removed, up to `most`."""
    is_there = and_(
        subscriptions.c.organization_id == organization_id,
        subscriptions.c.kind == SubscriptionKind.REGISTERED,
        subscriptions.c.deleted_at.is_(None),
    )
    return count_up_to(most, subscriptions.c.id, is_there)


def count_running_replays(organization_id: int, most: int) -> Select[Any]:
    """Return the query that counts the running replays of an organization, up to `most`."""
    is_running = and_(replays.c.organization_id == organization_id, replays.c.status == ReplayStatus.RUNNING)
    return count_up_to(most, replays.c.id, is_running)


def count_open_tasks(organization_id: int, most: int) -> Select[Any]:
    """Return the query that counts the tasks of an organization that have not ended, up to `most`."""
    return count_up_to(most, tasks.c.id, and_(tasks.c.organization_id == organization_id, tasks.c.status.in_(_OPEN)))


def count_idempotency_keys(organization_id: int, now: datetime, most: int) -> Select[Any]:
    """Return the query that counts the idempotency keys of an organization that are valid, up to `most`."""
    table = idempotency_keys.c
    is_valid = and_(table.organization_id == organization_id, table.created_at > now - KEPT)
    return count_up_to(most, table.created_at, is_valid)


async def lock_organization(tx: Transaction, organization_id: int, *, skip_locked: bool = False) -> bool:
    """Lock an organization's row against others who do; with `skip_locked` return False where another has locked it.

    It is the weakest lock that does so: rows that refer to the organization may be inserted meanwhile.
    """
    wanted = select(organizations.c.id).where(organizations.c.id == organization_id)
    return bool(await tx.execute(wanted.with_for_update(key_share=True, skip_locked=skip_locked)))


async def is_below(tx: Transaction, organization_id: int, count: Callable[[int, int], Select[Any]], most: int) -> bool:
    """Return whether an organization has fewer than `most` of what `count` counts; asked where one more is added.

    Two processes that add one at the same time wait for each other: the organization's row is locked.
    """
    await lock_organization(tx, organization_id)
    return int((await tx.execute(count(organization_id, most)))[0][0]) < most


def stored_bytes_after(after: int, rows: int) -> Select[Any]:
    """Return the query for (organization_id, bytes, tasks, last) of the next `rows` tasks after the row key `after`.

    `bytes` is the sum of their `stored_bytes`, `tasks` their number, and `last` the greatest of their row keys.
    """
    page = select(tasks.c.id, tasks.c.organization_id, tasks.c.stored_bytes).where(tasks.c.id > after)
    part = page.order_by(tasks.c.id).limit(rows).subquery()
    return select(
        part.c.organization_id,
        func.sum(part.c.stored_bytes).label("bytes"),
        func.count().label("tasks"),
        func.max(part.c.id).label("last"),
    ).group_by(part.c.organization_id)
