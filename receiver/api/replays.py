"""Sending to one webhook again: `/api/v1/webhooks/{id}/recover`, `/replay` and `/replays`."""

from collections.abc import Mapping, Sequence
from typing import Any

from models import ReplayStatus
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row
from receiver.api.lists import page, read_cursor
from receiver.api.repetition import after_work, has_moved
from receiver.api.schemas import Page, RecoverRequest, ReplayRequest
from receiver.api.webhooks import find_webhook
from receiver.domain.delivery_views import counts_by_replay, native_replay
from receiver.storage.replays import deliveries_by_status, replay_by_id, replays_of

Row = Mapping[str, Any]


async def recover(call: Call) -> Reply:
    """`POST /api/v1/webhooks/{id}/recover`: send again what was given up since a time."""
    webhook = await find_webhook(call)
    wanted = await call.body(RecoverRequest)
    uid = call.new_id()
    if (earlier := await _earlier_reply(call, webhook, uid)) is not None:
        return earlier
    row = await call.services.replays.recover(webhook, uid, wanted.since, call.actor(), most=_most(call))
    return Reply(native_replay(row, webhook["uid"], {}), "replay", status=202)


async def replay(call: Call) -> Reply:
    """`POST /api/v1/webhooks/{id}/replay`: send all events of a range again that match, delivered or not."""
    webhook = await find_webhook(call)
    wanted = await call.body(ReplayRequest)
    uid = call.new_id()
    if (earlier := await _earlier_reply(call, webhook, uid)) is not None:
        return earlier
    row = await call.services.replays.replay(
        webhook, uid, wanted.since, wanted.until, wanted.event_types, call.actor(), most=_most(call)
    )
    return Reply(native_replay(row, webhook["uid"], {}), "replay", status=202)


async def list_replays(call: Call) -> Reply:
    """`GET /api/v1/webhooks/{id}/replays`: list the replays of a webhook, newest first."""
    webhook = await find_webhook(call)
    query = call.query(Page)
    rows = await call.services.database.read(replays_of(webhook["id"], query.limit + 1, read_cursor(query.cursor)))
    return page(rows, query.limit, await _views(call, webhook, rows))


async def get_replay(call: Call) -> Reply:
    """`GET /api/v1/webhooks/{id}/replays/{replay_id}`: return a replay and its progress."""
    webhook = await find_webhook(call)
    return Reply((await _views(call, webhook, [await _replay(call, webhook)]))[0], "replay")


async def cancel_replay(call: Call) -> Reply:
    """`POST /api/v1/webhooks/{id}/replays/{replay_id}/cancel`, or `DELETE`: end a replay and its pending deliveries."""
    webhook = await find_webhook(call)
    row = await _replay(call, webhook)
    if not (await has_moved(call, row["status"]) and row["status"] == ReplayStatus.CANCELLED):
        await call.services.replays.cancel(row, call.actor())
    return await after_work(_present(call, webhook))


def _most(call: Call) -> int | None:
    return call.services.known_limits.of(call.organization_id).running_replays


async def _earlier_reply(call: Call, webhook: Row, uid: str) -> Reply | None:
    """Return the replay that an earlier request with the same idempotency key created, if it did."""
    rows = await call.services.database.read(replay_by_id(webhook["id"], uid)) if call.is_resumed else []
    return Reply((await _views(call, webhook, rows))[0], "replay", status=202) if rows else None


async def _present(call: Call, webhook: Row) -> Reply:
    return Reply((await _views(call, webhook, [await _replay(call, webhook)]))[0], "replay")


async def _replay(call: Call, webhook: Row) -> Row:
    return await find_row(call.services.database, replay_by_id(webhook["id"], call.path_id("replay_id")), "replay")


async def _views(call: Call, webhook: Row, rows: Sequence[Row]) -> list[dict[str, Any]]:
    counts = counts_by_replay(await call.services.database.read(deliveries_by_status([row["id"] for row in rows])))
    return [native_replay(row, webhook["uid"], counts.get(row["id"], {})) for row in rows]
