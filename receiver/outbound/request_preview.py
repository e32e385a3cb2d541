"""The request of a delivery, as the API shows it: without signatures and secrets.

Requests are not stored, because those of one delivery differ only in the time.
"""

from datetime import datetime
from typing import Any

import orjson

from receiver.clock import utc_now
from receiver.domain.delivery_views import without_secrets
from receiver.errors import RingbackError
from receiver.large_bodies import read_by_size
from receiver.outbound.message import MessageBuilder
from receiver.storage.database import Database
from receiver.storage.deliveries import TO_SEND
from receiver.storage.hot import HotRow


async def request_preview(
    database: Database, messages: MessageBuilder, delivery_id: int, at: datetime | None
) -> dict[str, Any] | None:
    """Return the request of a delivery, as it was sent at the time `at`, or as it would be sent now.

    Its time is not the one that was signed if this machine's clock was wrong then (`clock.signed_time`). It has no
    `traceparent`, which each attempt has of its own. If it cannot be built, `error` is the reason. None if the
    delivery was deleted.
    """
    rows = await database.read_large_by_keys(TO_SEND, [delivery_id])
    if not rows:
        return None
    row, moment = rows[0], at or utc_now()
    return await read_by_size(row["task"]["stored_bytes"] or 0, lambda: _preview(messages, row, moment))


def _preview(messages: MessageBuilder, row: HotRow, moment: datetime) -> dict[str, Any]:
    target: dict[str, Any] = {"method": "POST", "url": row["subscription"]["endpoint_url"]}
    try:
        message = messages.build_delivery(row, moment)
    except RingbackError as error:
        return {**target, "error": error.message}
    return {**target, "headers": without_secrets(message.headers(moment)), "body": orjson.loads(message.body)}
