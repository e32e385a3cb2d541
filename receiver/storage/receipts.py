"""Receipts: inbound webhooks that were authentic and yet not applied; the lists of the API."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Select, and_, case, cast, func, insert, not_, select, update

from models import ReceiptReason
from receiver.domain.ids import new_id
from receiver.storage.organizations import operators
from receiver.storage.page_filter import PageFilter
from receiver.storage.tables import receipts, tasks
from receiver.storage.transaction import Transaction, Values


class ReceiptFilter(PageFilter, frozen=True, kw_only=True):
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
    at, key = receipts.c.received_at, receipts.c.id
    equal = {"reason": wanted.reason, "provider": wanted.provider, "task_uid": wanted.task_uid}
    return (
        select(*(column for column in receipts.c if column.name != "body"))
        .where(*replace(wanted, before=None).conditions(receipts, **equal), *_after_cursor(wanted.before))
        .order_by(at.desc(), key.desc())
        .limit(limit)
    )


def _after_cursor(before: int | None) -> list[ColumnElement[bool]]:
    """Return the conditions for what comes after a row in the list, whose order is that of time.

    The clean-up purges the oldest first: where that row is gone, all that came after it is.
    """
    if before is None:
        return []
    shown = receipts.alias()
    moment = select(shown.c.received_at).where(shown.c.id == before).scalar_subquery()
    at = receipts.c.received_at
    return [at <= moment, not_(and_(at == moment, receipts.c.id >= before))]


def receipt_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one receipt with its body."""
    return select(receipts).where(receipts.c.organization_id == organization_id, receipts.c.uid == uid)


def receipts_without_owner(after: tuple[datetime, int] | None, limit: int) -> Select[Any]:
    """Return the query for (received_at, id) of receipts of an earlier version, which did not write whose they are.

    They are the next ones after `after`, oldest first.
    """
    at, key = receipts.c.received_at, receipts.c.id
    conditions: list[ColumnElement[bool]] = [receipts.c.organization_id.is_(None)]
    if after is not None:
        conditions += [at >= after[0], not_(and_(at == after[0], key <= after[1]))]
    return select(at, key).where(*conditions).order_by(at, key).limit(limit)


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
