"""`ping`: a signed trial delivery to one webhook, at once and past the table."""

from typing import Any

import orjson

from models import EventType
from receiver.clock import utc_now
from receiver.domain.delivery_views import without_secrets
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.domain.representations import Fields, native_webhook
from receiver.outbound.message import Message, MessageBuilder
from receiver.outbound.sender import Sender, SendResult


class Pinger:
    """Sends pings through a sender of its own: trials of endpoints that hang hold up no delivery."""

    def __init__(self, sender: Sender, keyring: KeyRing) -> None:
        self._sender = sender
        self._messages = MessageBuilder(keyring)

    async def ping(self, subscription: Fields) -> dict[str, Any]:
        """Send a ping to a webhook, active or not; return what was sent and what came of it.

        `subscription` is a row of `storage.subscriptions.webhook_by_id`. Raises `MasterKeyMissing`.
        """
        now = utc_now()
        event = {
            "uid": new_id(),
            "type": EventType.PING,
            "snapshot": {"webhook": native_webhook(subscription)},
            "created_at": now,
        }
        message = self._messages.build(
            subscription, event, None, organization_uid=subscription["organization_uid"], now=now
        )
        answer = await message.send(self._sender, subscription["endpoint_url"], now)
        return _shown(message, message.headers(now), answer)


def _shown(message: Message, headers: dict[str, str], answer: SendResult) -> dict[str, Any]:
    return {
        "object": "test",
        "event_id": message.id,
        "delivered": answer.ok,
        "status_code": answer.status,
        "error": answer.error,
        "duration_ms": answer.duration_ms,
        "response": answer.response,
        "request": {"headers": without_secrets(headers), "body": orjson.loads(message.body)},
    }
