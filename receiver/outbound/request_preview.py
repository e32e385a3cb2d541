"""The request of a delivery, as the API shows it: without signatures and secrets."""

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
    """Builds previews of requests. Requests are not stored, and those of one delivery differ only in the time."""

    def __init__(self, database: Database, keyring: KeyRing) -> None:
        self._database = database
        self._messages = MessageBuilder(keyring)

    async def of(self, delivery_id: int, at: datetime | None) -> dict[str, Any] | None:
        """Return the request of a delivery, as it was sent at the time `at`, or as it would be sent now.

        If it cannot be built, `error` is the reason. None if the delivery was deleted.
        """
        rows = await self._database.read_by_keys(TO_SEND, [delivery_id])
        if not rows:
            return None
        target: dict[str, Any] = {"method": "POST", "url": rows[0]["subscription"]["endpoint_url"]}
        moment = at or utc_now()
        try:
            message = self._messages.build_delivery(rows[0], moment)
        except RingbackError as error:
            return {**target, "error": error.message}
        return {**target, "headers": without_secrets(message.headers(moment)), "body": orjson.loads(message.body)}
