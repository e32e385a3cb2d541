"""Receipts: inbound webhooks that were authentic and yet not applied."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert

from models import ReceiptReason
from receiver.domain.ids import new_id
from receiver.storage.tables import receipts
from receiver.storage.transaction import Transaction, Values


def new_receipt(
    *,
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
