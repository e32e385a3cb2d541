"""`ping`: a signed test delivery to one webhook, sent at once and not stored."""

from typing import Any

import orjson

from models import EventType
from receiver.clock import utc_now, wall_now
from receiver.domain.delivery_views import without_secrets
from receiver.domain.ids import new_id
from receiver.domain.representations import Fields, native_webhook
from receiver.lookups.resolver import looked_up_for
from receiver.outbound.message import Message, MessageBuilder
from receiver.outbound.sender import Sender, SendResult


async def send_ping(sender: Sender, messages: MessageBuilder, subscription: Fields) -> dict[str, Any]:
    """Send a ping to a webhook, active or not; return the request and its result, as the API shows them.

    `subscription` is a row of `storage.subscriptions.webhook_by_id`. Raises `MasterKeyMissing`.
    """
    now = utc_now()
    event = {
        "uid": new_id(),
        "type": EventType.PING,
        "run_uid": None,
        "snapshot": {"webhook": native_webhook(subscription)},
        "created_at": now,
    }
    message = messages.build(subscription, event, None, organization_uid=subscription["organization_uid"], now=now)
    sent_at = wall_now()
    with looked_up_for(subscription["organization_id"]):
        result = await message.send(sender, subscription["endpoint_url"], sent_at)
    return _test_view(message, message.headers(sent_at), result)


def _test_view(message: Message, headers: dict[str, str], result: SendResult) -> dict[str, Any]:
    return {
        "object": "test",
        "event_id": message.id,
        "delivered": result.ok,
        "status_code": result.status,
        "error": result.error,
        "duration_ms": result.duration_ms,
        "response": result.response,
        "request": {"headers": without_secrets(headers), "body": orjson.loads(message.body)},
    }
