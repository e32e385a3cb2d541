"""`/api/v1/receipts`: what providers sent that was authentic and not applied. `/api/v1/inbound`: counts of all."""

import asyncio
from collections.abc import Mapping
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row
from receiver.api.lists import page, read_cursor
from receiver.api.organizations import is_operator
from receiver.api.schemas import ReceiptQuery
from receiver.domain.representations import iso
from receiver.errors import BadRequest
from receiver.storage.receipts import ReceiptFilter, receipt_by_id, receipts_matching
from receiver.telemetry.inbound_counts import inbound_counts


async def list_receipts(call: Call) -> Reply:
    """`GET /api/v1/receipts`: newest first, without bodies; filtered by reason, provider, task and time."""
    query = call.query(ReceiptQuery)
    if query.received_after and query.received_before and query.received_before <= query.received_after:
        raise BadRequest("must be after received_after", code="invalid_query_params", param="received_before")
    task = None
    if query.task_id is not None:
        task = await call.services.tracker.task(call.organization_id, query.task_id)
    wanted = ReceiptFilter(
        organization_id=call.organization_id,
        reason=query.reason,
        provider=query.provider,
        task_uid=task["uid"] if task is not None else None,
        created_after=query.received_after,
        created_before=query.received_before,
        before=read_cursor(query.cursor),
    )
    rows = await call.services.database.read(receipts_matching(wanted, query.limit + 1))
    return page(rows, query.limit, [_view(row) for row in rows])


async def get_receipt(call: Call) -> Reply:
    """`GET /api/v1/receipts/{id}`: one receipt with its body, the text that is kept."""
    query = receipt_by_id(call.organization_id, call.path_id("receipt_id"))
    row = await find_row(call.services.database, query, "receipt")
    return Reply({**_view(row), "body": row["body"]}, "receipt")


async def get_inbound(call: Call) -> Reply:
    """`GET /api/v1/inbound`: how many webhooks came in since the service started, by what became of them.

    They are of all organizations together, so only the operator's gets them.
    """
    counts = await asyncio.to_thread(inbound_counts) if await is_operator(call) else None
    return Reply({"object": "inbound", "providers": [], "updates": None, **(counts or {})}, "inbound")


def _view(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "receipt",
        "id": row["uid"],
        "provider": row["provider"],
        "task_id": row["task_uid"],
        "provider_task_id": row["provider_task_id"],
        "reason": row["reason"],
        "message": row["message"],
        "received_at": iso(row["received_at"]),
    }
