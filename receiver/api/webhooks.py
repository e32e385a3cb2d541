"""`/api/v1/webhooks`: register callback URLs.

Pi's endpoints (`receiver/api/CONTRACTS.md`, "Pi"), extended by Ringback's own fields.
"""

import hashlib
from datetime import timedelta
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row
from receiver.api.lists import page, read_cursor
from receiver.api.repetition import has_moved
from receiver.api.schemas import ChangeWebhook, CreateWebhook, RotateSecret, WebhookQuery
from receiver.lookups.resolver import looked_up_for
from receiver.outbound.ping import send_ping
from receiver.outbound.subscriptions import SavedSubscription
from receiver.storage.audit import audit
from receiver.storage.subscriptions import webhook_by_id, webhooks


async def create_webhook(call: Call) -> Reply:
    """`POST /api/v1/webhooks`: register a webhook; only this response contains a secret that Ringback made."""
    wanted = await call.body(CreateWebhook)
    given = {name: value for name, value in wanted if value is not None}
    uid, subscriptions = call.new_id(), call.services.subscriptions
    if call.is_resumed and (earlier := await subscriptions.find_registered(uid, given)):
        return _reply(call, earlier)
    most = call.services.known_limits.of(call.organization_id).webhooks
    with looked_up_for(call.organization_id):
        return _reply(call, await subscriptions.register(uid, given, call.actor(), most=most))


async def list_webhooks(call: Call) -> Reply:
    """`GET /api/v1/webhooks`: list the webhooks, newest first; `include=stats` adds their numbers of the last day."""
    query = call.query(WebhookQuery)
    rows = await call.services.database.read(webhooks(call.organization_id, query.limit + 1, read_cursor(query.cursor)))
    views = [call.services.subscriptions.view(row) for row in rows]
    if query.include == "stats" and rows:
        found = await call.services.statistics.of_webhooks(call.organization_id, [row["id"] for row in rows])
        views = [{**view, "stats": found[row["id"]]} for row, view in zip(rows, views, strict=True)]
    return page(rows, query.limit, views)


async def get_webhook(call: Call) -> Reply:
    """`GET /api/v1/webhooks/{id}`: return a webhook."""
    return Reply(call.services.subscriptions.view(await find_webhook(call)), "webhook")


async def change_webhook(call: Call) -> Reply:
    """`PATCH /api/v1/webhooks/{id}`: change a webhook.

    Another `signature` scheme needs another secret; if Ringback makes it, only this response contains it.
    """
    row = await find_webhook(call)
    wanted = await call.body(ChangeWebhook)
    with looked_up_for(call.organization_id):
        given = wanted.model_dump(exclude_unset=True)
        changed = await call.services.subscriptions.change(row["uid"], given, call.actor())
    return _reply(call, changed)


async def rotate_secret(call: Call) -> Reply:
    """`POST /api/v1/webhooks/{id}/rotate-secret`: replace a webhook's secret; only this response has the new one.

    A repetition with the same `Idempotency-Key` returns the secret that the first request made.
    """
    row, subscriptions = await find_webhook(call), call.services.subscriptions
    wanted = await call.body(RotateSecret, optional=True)
    overlap = timedelta(seconds=wanted.overlap_seconds)
    # The secret is stored encrypted; its hash only tells whether it is the same.
    if await has_moved(call, hashlib.sha256(str(row["secret"]).encode()).hexdigest()):
        return _reply(call, subscriptions.as_saved(row))
    return _reply(call, await subscriptions.rotate(row["uid"], overlap, wanted.secret, call.actor()))


async def test_webhook(call: Call) -> Reply:
    """`POST /api/v1/webhooks/{id}/test`: send a signed `ping` now, and return its result.

    A repetition whose first answer was lost sends another ping.
    """
    services, row = call.services, await find_webhook(call)
    actor = call.actor()
    await services.database.writer.run(lambda tx: audit(tx, actor, "webhook.test", row["uid"]))
    return Reply(await send_ping(services.test_sender, services.messages, row), "test")


async def delete_webhook(call: Call) -> Reply:
    """`DELETE /api/v1/webhooks/{id}`: remove a webhook, and cancel its pending deliveries."""
    row = await find_webhook(call)
    await call.services.subscriptions.remove(row["uid"], call.actor())
    return Reply({"object": "webhook", "id": row["uid"], "deleted": True}, "webhook")


def _reply(call: Call, saved: SavedSubscription) -> Reply:
    """Return a webhook, with its secret if that is to be returned this once."""
    view = call.services.subscriptions.view(saved.row)
    return Reply({**view, "secret": saved.secret} if saved.secret is not None else view, "webhook")


async def find_webhook(call: Call) -> dict[str, Any]:
    """Return the row of the path's webhook. Raises `BadRequest`, `NotFound`."""
    query = webhook_by_id(call.organization_id, call.path_id("webhook_id"))
    return await find_row(call.services.database, query, "webhook")
