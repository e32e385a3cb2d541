"""The request of a delivery, as a person may see it: without signatures and secrets."""

from datetime import datetime
from typing import Any

import orjson

from receiver.clock import utc_now
from receiver.domain.delivery_views import without_secrets
from receiver.domain.keyring import KeyRing
from receiver.errors import RingbackError
from receiver.outbound.message import MessageBuilder
from receiver.storage.database import Database
from receiver.storage.deliveries import TO_SEND


class RequestPreviews:
    """Shows requests, composed anew: a delivery keeps none of them, and they are the same for every attempt."""

    def __init__(self, database: Database, keyring: KeyRing) -> None:
        self._database = database
        self._messages = MessageBuilder(keyring)

    async def of(self, delivery_id: int, at: datetime | None) -> dict[str, Any] | None:
        """Return the request of a delivery, as it was sent `at` that moment or would be now.

        `error` says why it cannot be composed, if so. None if the delivery is gone.
        """
        rows = await self._database.read_by_keys(TO_SEND, [delivery_id])
        if not rows:
            return None
        shown: dict[str, Any] = {"method": "POST", "url": rows[0]["subscription"]["endpoint_url"]}
        moment = at or utc_now()
        try:
            message = self._messages.build_delivery(rows[0], moment)
        except RingbackError as error:
            return {**shown, "error": error.message}
        return {**shown, "headers": without_secrets(message.headers(moment)), "body": orjson.loads(message.body)}
