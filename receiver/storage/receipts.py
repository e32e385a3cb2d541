"""Receipts: inbound webhooks that were authentic and yet not applied; the lists of the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Select, case, cast, func, insert, select, update

from models import ReceiptReason
from receiver.domain.ids import new_id
from receiver.storage.organizations import operators
from receiver.storage.page_filter import PageFilter
from receiver.storage.tables import receipts, tasks
from receiver.storage.transaction import Transaction, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptFilter(PageFilter):
    """Which receipts to list, by when they were received; None does not filter."""

    TIME: ClassVar[str] = "received_at"

    reason: ReceiptReason | None = None
    provider: str | None = None
    task_uid: str | None = None


def new_receipt(
    *,
    organization_id: int,
    provider: str,
    task_uid: str | None,
    provider_task_id: str | None,
    reason: ReceiptReason,
    message: str,
    body: str,
    now: datetime,
) -> dict[str, Any]:
    """Return the row of a new receipt; `body` is the webhook's body as text, without secrets."""
    return {
        "uid": new_id(),
        "organization_id": organization_id,
        "provider": provider,
        "task_uid": task_uid,
        "provider_task_id": provider_task_id,
        "reason": reason,
        "message": message,
        "body": body,
        "received_at": now,
    }


async def insert_receipts(tx: Transaction, rows: Sequence[Values]) -> None:
    """Insert receipts."""
    await tx.execute(insert(receipts), rows)


async def receipt_owner(tx: Transaction, task_uid: str | None) -> int:
    """Return the row key of the organization that a receipt belongs to: that of its task, else the operator's."""
    of_task = select(tasks.c.organization_id).where(tasks.c.uid == task_uid)
    found = await tx.execute(of_task) if task_uid is not None else ()
    return int((found or await tx.execute(operators()))[0][0])


def receipts_matching(wanted: ReceiptFilter, limit: int) -> Select[Any]:
    """Return the query for a page of receipts, newest first, without their bodies, which may be large."""
    equal = {"reason": wanted.reason, "provider": wanted.provider, "task_uid": wanted.task_uid}
    return (
        select(*(column for column in receipts.c if column.name != "body"))
        .where(*wanted.conditions(receipts, **equal))
        .order_by(receipts.c.id.desc())
        .limit(limit)
    )


def receipt_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one receipt with its body."""
    return select(receipts).where(receipts.c.organization_id == organization_id, receipts.c.uid == uid)


def receipts_without_owner(after: int, limit: int) -> Select[Any]:
    """Return the query for the next receipts that an earlier version wrote, which did not write whose they are."""
    is_next = (receipts.c.organization_id.is_(None), receipts.c.id > after)
    return select(receipts.c.id).where(*is_next).order_by(receipts.c.id).limit(limit)


async def find_owners(tx: Transaction, keys: Sequence[int]) -> int:
    """Write down whose these receipts are; return of how many it is known.

    One whose task was purged stays without an owner, and is not shown: it may have been of any organization.
    """
    task_uid = cast(receipts.c.task_uid, tasks.c.uid.type)  # a text here, and a UUID there
    of_task = select(tasks.c.organization_id).where(tasks.c.uid == task_uid).scalar_subquery()
    owner = case((receipts.c.task_uid.is_(None), operators().scalar_subquery()), else_=of_task)
    await tx.execute(
        update(receipts)
        .where(receipts.c.id.in_(keys), receipts.c.organization_id.is_(None))
        .values(organization_id=owner)
    )
    is_known = (receipts.c.id.in_(keys), receipts.c.organization_id.is_not(None))
    return int((await tx.execute(select(func.count()).select_from(receipts).where(*is_known)))[0][0])
