"""`/api/v1/deliveries`: list and read deliveries, and send one again."""

from collections.abc import Callable
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row, read_id
from receiver.api.lists import page, read_cursor
from receiver.api.repetition import after_work, has_moved
from receiver.api.schemas import DeliveryQuery, WebhookDeliveryQuery
from receiver.api.webhooks import find_webhook
from receiver.domain.delivery_views import native_attempt, native_delivery
from receiver.domain.representations import iso
from receiver.errors import BadRequest
from receiver.outbound.request_preview import request_preview
from receiver.storage.database import Query
from receiver.storage.deliveries import DeliveryFilter, delivery_attempts_of, delivery_by_id, page_of_deliveries
from receiver.storage.events import event_key
from receiver.storage.subscriptions import webhook_key


async def list_deliveries(call: Call) -> Reply:
    """`GET /api/v1/deliveries`: list deliveries, newest first."""
    query = call.query(DeliveryQuery)
    webhook = None
    if query.webhook_id is not None:
        webhook = await _key(call, webhook_key, query.webhook_id, "webhook")
    return await _page(call, query, webhook)


async def list_webhook_deliveries(call: Call) -> Reply:
    """`GET /api/v1/webhooks/{id}/deliveries`: list the deliveries of a webhook, newest first."""
    webhook = await find_webhook(call)
    query = call.query(WebhookDeliveryQuery)
    return await _page(call, query, webhook["id"])


async def get_delivery(call: Call) -> Reply:
    """`GET /api/v1/deliveries/{id}`: return a delivery with its request, as it is sent, and all attempts."""
    row, database = await _delivery(call), call.services.database
    attempts = await database.read(delivery_attempts_of(row["id"]))
    sent_at = attempts[-1]["started_at"] if attempts else None
    view = {
        **native_delivery(row),
        "request": await request_preview(database, call.services.messages, row["id"], sent_at),
        "attempts": [native_attempt(attempt) for attempt in attempts],
    }
    return Reply(view, "delivery")


async def retry_delivery(call: Call) -> Reply:
    """`POST /api/v1/deliveries/{id}/retry`: send a delivery again now, its retry schedule from the beginning.

    A repetition with the same `Idempotency-Key` leaves a delivery as it is that has changed since the first request.
    """
    row = await _delivery(call)
    if not await has_moved(call, f"{row['status']} {iso(row['settled_at'])}"):
        await call.services.replays.retry(call.path_id("delivery_id"), call.actor())
    return Reply(native_delivery(await after_work(_delivery(call))), "delivery", status=202)


async def _page(call: Call, query: WebhookDeliveryQuery, subscription_id: int | None) -> Reply:
    if query.created_after and query.created_before and query.created_before <= query.created_after:
        raise BadRequest("must be after created_after", code="invalid_query_params", param="created_before")
    task = event = None
    if query.task_id is not None:
        task = await call.services.tracker.task(call.organization_id, query.task_id)
    if query.event_id is not None:
        event = await _key(call, event_key, query.event_id, "event")
    wanted = DeliveryFilter(
        organization_id=call.organization_id,
        status=query.status,
        subscription_id=subscription_id,
        event_id=event,
        task_id=task["id"] if task is not None else None,
        created_after=query.created_after,
        created_before=query.created_before,
        before=read_cursor(query.cursor),
    )
    read = call.services.database.read
    rows = await read(await page_of_deliveries(read, wanted, query.limit + 1))
    return page(rows, query.limit, [native_delivery(row) for row in rows])


async def _delivery(call: Call) -> dict[str, Any]:
    query = delivery_by_id(call.organization_id, call.path_id("delivery_id"))
    return await find_row(call.services.database, query, "delivery")


async def _key(call: Call, query: Callable[[int, str], Query], given: str, thing: str) -> int:
    uid = read_id(given, param=f"{thing}_id", code="invalid_query_params")
    return int((await find_row(call.services.database, query(call.organization_id, uid), thing))["id"])
