"""Registering callback URLs: `/api/v1/webhooks` (contracts/pi.md, with Ringback's fields besides)."""

from datetime import timedelta
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call, check
from receiver.api.lists import page, read_cursor, read_query
from receiver.api.schemas import ChangeWebhook, CreateWebhook, Page, RotateSecret
from receiver.errors import NotFound
from receiver.outbound.subscriptions import SavedSubscription
from receiver.storage.subscriptions import webhook_by_id, webhooks


async def create_webhook(call: Call) -> Reply:
    """`POST /api/v1/webhooks`: a secret that Ringback made is in this answer, and never again."""
    wanted = await call.body(CreateWebhook)
    given = {name: value for name, value in wanted if value is not None}
    uid, subscriptions = call.new_id(), call.services.subscriptions
    if call.is_resumed and (earlier := await subscriptions.registered(uid, given)):
        return _told(call, earlier)
    return _told(call, await subscriptions.register(call.organization_id, uid, given))


async def list_webhooks(call: Call) -> Reply:
    """`GET /api/v1/webhooks`."""
    query = check(Page, read_query(call.request.query_params), code="invalid_query_params")
    rows = await call.services.database.read(webhooks(call.organization_id, query.limit + 1, read_cursor(query.cursor)))
    return page(rows, query.limit, [call.services.subscriptions.shown(row) for row in rows])


async def get_webhook(call: Call) -> Reply:
    """`GET /api/v1/webhooks/{id}`."""
    return Reply(call.services.subscriptions.shown(await find_webhook(call)), "webhook")


async def change_webhook(call: Call) -> Reply:
    """`PATCH /api/v1/webhooks/{id}`: a secret that another `signature` made necessary is in this answer alone."""
    row = await find_webhook(call)
    wanted = await call.body(ChangeWebhook)
    changed = await call.services.subscriptions.change(row["uid"], wanted.model_dump(exclude_unset=True))
    return _told(call, changed)


async def rotate_secret(call: Call) -> Reply:
    """`POST /api/v1/webhooks/{id}/rotate-secret`: the new secret is in this answer, and never again.

    If a request dies before it is told, the next one with its idempotency key rotates again: what was told to nobody
    signs along for the overlap.
    """
    row = await find_webhook(call)
    wanted = await call.body(RotateSecret, optional=True)
    overlap = timedelta(seconds=wanted.overlap_seconds)
    return _told(call, await call.services.subscriptions.rotate(row["uid"], overlap, wanted.secret))


async def test_webhook(call: Call) -> Reply:
    """`POST /api/v1/webhooks/{id}/test`: sends a signed `ping` now, and answers what came of it.

    Done again after a crash, it sends another ping.
    """
    return Reply(await call.services.pinger.ping(await find_webhook(call)), "test")


async def delete_webhook(call: Call) -> Reply:
    """`DELETE /api/v1/webhooks/{id}`: stops at once, and cancels what waits."""
    row = await find_webhook(call)
    await call.services.subscriptions.remove(row["uid"])
    return Reply({"object": "webhook", "id": row["uid"], "deleted": True}, "webhook")


def _told(call: Call, kept: SavedSubscription) -> Reply:
    shown = call.services.subscriptions.shown(kept.row)
    return Reply({**shown, "secret": kept.secret} if kept.secret is not None else shown, "webhook")


async def find_webhook(call: Call) -> dict[str, Any]:
    """Return the row of the webhook that the path names. Raises `BadRequest`, `NotFound`."""
    rows = await call.services.database.read(webhook_by_id(call.organization_id, call.path_id("webhook_id")))
    if not rows:
        raise NotFound("there is no such webhook", param="webhook_id")
    return rows[0]
