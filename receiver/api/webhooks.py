"""Registering callback URLs: `/api/v1/webhooks` (contracts/pi.md, with Ringback's fields besides)."""

from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call, check
from receiver.api.lists import page, read_cursor, read_query
from receiver.api.schemas import ChangeWebhook, CreateWebhook, Page
from receiver.domain.representations import native_webhook
from receiver.errors import NotFound
from receiver.storage.queries import webhook_by_id, webhooks


async def create_webhook(call: Call) -> Reply:
    """`POST /api/v1/webhooks`: a secret that Ringback made is in this answer, and never again."""
    wanted = await call.body(CreateWebhook)
    row, made = await call.services.subscriptions.register(
        call.organization_id,
        endpoint_url=wanted.endpoint_url,
        secret=wanted.secret,
        form=wanted.format,
        event_types=wanted.event_types,
        description=wanted.description,
    )
    shown = native_webhook(row)
    return Reply({**shown, "secret": made} if made is not None else shown, "webhook")


async def list_webhooks(call: Call) -> Reply:
    """`GET /api/v1/webhooks`."""
    query = check(Page, read_query(call.request.query_params), code="invalid_query_params")
    rows = await call.services.database.read(webhooks(call.organization_id, query.limit + 1, read_cursor(query.cursor)))
    return page(rows, query.limit, [native_webhook(row) for row in rows])


async def get_webhook(call: Call) -> Reply:
    """`GET /api/v1/webhooks/{id}`."""
    return Reply(native_webhook(await _webhook(call)), "webhook")


async def change_webhook(call: Call) -> Reply:
    """`PATCH /api/v1/webhooks/{id}`."""
    row = await _webhook(call)
    wanted = await call.body(ChangeWebhook)
    changed = await call.services.subscriptions.change(row, wanted.model_dump(exclude_unset=True))
    return Reply(native_webhook(changed), "webhook")


async def delete_webhook(call: Call) -> Reply:
    """`DELETE /api/v1/webhooks/{id}`: stops at once, and cancels what waits."""
    row = await _webhook(call)
    await call.services.subscriptions.remove(row["uid"])
    return Reply({"object": "webhook", "id": row["uid"], "deleted": True}, "webhook")


async def _webhook(call: Call) -> dict[str, Any]:
    rows = await call.services.database.read(webhook_by_id(call.organization_id, call.path("webhook_id")))
    if not rows:
        raise NotFound("there is no such webhook", param="webhook_id")
    return rows[0]
