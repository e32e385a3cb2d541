"""Sends events again: one delivery, the deliveries that failed for good since a time, or all events that match.

What a replay sends is what was written up to the moment it was asked for, also by transactions whose COMMIT was under
way then: the first batch waits for them (`receiver.storage.open_writers`). Events of transactions that began later are
matched with the webhook as usual.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from models import DeliveryStatus, ReplayKind, ReplayStatus
from receiver.clock import utc_now
from receiver.domain.audit_values import difference
from receiver.domain.matching import check_event_types, matches
from receiver.domain.representations import iso
from receiver.errors import BadRequest, Conflict, LimitReached, NotFound
from receiver.events.after_commit import Dispatcher
from receiver.organization_limits import limit_reached
from receiver.storage.audit import Actor, audit
from receiver.storage.database import Database
from receiver.storage.open_writers import DELIVERIES, EVENTS, OpenWriters
from receiver.storage.organizations import count_running_replays, is_below
from receiver.storage.replays import (
    ReplayBatch,
    cancel_replay,
    count_events,
    count_given_up,
    deliveries_to_recover,
    delivery_to_retry,
    events_to_replay,
    insert_replay,
    pending_of,
    pending_replayed,
    retry_delivery,
    running_replays,
    send_events,
    send_given_up,
)
from receiver.storage.transaction import Transaction

Row = Mapping[str, Any]

MOST_DELIVERIES = 100_000
"""At most this many deliveries per replay."""
BATCH = 100
"""How many deliveries one transaction queues."""
MOST_PENDING = 500
"""No further batch of a replay while this many deliveries of its webhook's replays are pending: they may not delay new
events."""
_PAGE = 1000
_COUNTED_AT_ONCE = 5000
_COUNT_SECONDS = 1.0
"""How long a request for a replay waits for open transactions, so that its `total` has their events too."""
_ADVANCE_SECONDS = 0.2
"""How long the worker waits for them before it turns to the next replay."""


class Replays:
    """Creates replays, and queues their deliveries batch by batch. An attempt takes at most `lease_seconds`."""

    def __init__(
        self, database: Database, dispatcher: Dispatcher, *, retention_days: int, lease_seconds: float
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._retention = timedelta(days=retention_days) if retention_days else None
        self._lease = timedelta(seconds=lease_seconds)
        self.asked = asyncio.Event()
        """Set when a replay was created, to wake the worker that advances replays."""
        self._awaited: dict[int, OpenWriters] = {}
        """For each replay that waits to begin, the transactions that it waits for."""

    async def retry(self, uid: str, by: Actor) -> None:
        """Send a settled delivery of the actor's organization again, now. Raises `NotFound`, `Conflict`."""
        found = await self._database.read(delivery_to_retry(by.organization_id, uid))
        if not found:
            raise NotFound("there is no delivery with this id", code="delivery_not_found", param="delivery_id")
        delivery = found[0]
        if delivery["status"] == DeliveryStatus.PENDING:
            raise Conflict("the delivery is pending already: wait until it is settled")
        if not delivery["is_active"]:
            raise Conflict("the webhook of this delivery is removed or inactive: only an active one is sent to")
        now = utc_now()
        due_at = now
        if delivery["leased"]:  # cancelled during an attempt, which may not have ended yet: never two at once
            due_at = max(now, delivery["settled_at"] + self._lease)

        async def work(tx: Transaction) -> bool:
            if not await retry_delivery(tx, delivery, due_at):
                return False
            await audit(tx, by, "delivery.retry", uid, ({"status": delivery["status"]}, {"status": "pending"}))
            return True

        if not await self._database.writer.run(work):
            raise Conflict("the delivery is pending already: wait until it is settled")
        self._dispatcher.wake()

    async def recover(
        self, webhook: Row, uid: str, since: datetime, by: Actor, *, most: int | None = None
    ) -> dict[str, Any]:
        """Start to send again the deliveries that failed for good since then; return the replay's row.

        `most` is how many replays of the organization may run. Raises `BadRequest`, `LimitReached`.
        """
        now = utc_now()
        self._check(webhook, since, now)
        await self._check_number(webhook["organization_id"], most)
        await (await OpenWriters.of(self._database, DELIVERIES)).ended(_COUNT_SECONDS)
        total = await self._count(count_given_up(webhook["id"], since, now, MOST_DELIVERIES + 1))
        return await self._create(webhook, uid, ReplayKind.RECOVER, since, now, None, total, by, most)

    async def replay(
        self,
        webhook: Row,
        uid: str,
        since: datetime,
        until: datetime | None,
        event_types: Sequence[str] | None,
        by: Actor,
        *,
        most: int | None = None,
    ) -> dict[str, Any]:
        """Start to send again all events that match the webhook; return the replay's row.

        `most` is how many replays of the organization may run. Raises `BadRequest`, `LimitReached`.
        """
        now = utc_now()
        self._check(webhook, since, now)
        if until is not None and until <= since:
            raise BadRequest(f"must be after since ({iso(since)})", param="until")
        until = min(until or now, now)
        types = _narrowed(webhook["event_types"], event_types)
        await self._check_number(webhook["organization_id"], most)
        await (await OpenWriters.of(self._database, EVENTS)).ended(_COUNT_SECONDS)
        total = await self._count_matching(webhook, types, since, until)
        return await self._create(webhook, uid, ReplayKind.REPLAY, since, until, types, total, by, most)

    async def cancel(self, replay: Row, by: Actor) -> int:
        """Cancel a replay and its pending deliveries; return how many those were. Raises `Conflict` if it has ended."""
        now = utc_now()
        if replay["status"] != ReplayStatus.RUNNING and not await self._count(pending_of(replay["id"], 1)):
            raise Conflict(f"the replay is {replay['status']}, and none of its deliveries is pending")

        async def work(tx: Transaction) -> int:
            cancelled = await cancel_replay(tx, replay["id"], now)
            status = ({"status": replay["status"]}, {"status": ReplayStatus.CANCELLED, "deliveries": cancelled})
            await audit(tx, by, "replay.cancel", replay["uid"], status)
            return cancelled

        return await self._database.writer.run(work)

    async def running(self) -> list[dict[str, Any]]:
        """Return the replays that have not ended."""
        rows = await self._database.read(running_replays())
        keys = {row["id"] for row in rows}
        self._awaited = {key: writers for key, writers in self._awaited.items() if key in keys}
        return rows

    async def advance(self, replay: Row) -> bool:
        """Queue the next batch of a replay (a row of `running`); return whether another may follow at once."""
        if replay["deleted_at"] is not None:
            await self._database.writer.run(lambda tx: cancel_replay(tx, replay["id"], utc_now()), bounded=False)
            return False
        if not replay["is_active"]:
            return False
        if await self._count(pending_replayed(replay["subscription_id"], MOST_PENDING)) >= MOST_PENDING:
            return False
        if not replay["cursor"] and not await self._may_begin(replay):
            return False
        if replay["kind"] == ReplayKind.RECOVER:
            batch = await self._next_given_up(replay)
            send = partial(send_given_up, batch=batch, now=utc_now())
        else:
            batch = await self._next_events(replay)
            send = partial(send_events, batch=batch, now=utc_now())
        organization, items = replay["organization_id"], max(1, len(batch.keys))
        if await self._database.writer.run(send, bounded=False, items=items, organization=organization):
            self._dispatcher.wake()
        return not batch.is_last

    async def _may_begin(self, replay: Row) -> bool:
        """Return whether all that the replay is to send is visible by now."""
        writers = self._awaited.get(replay["id"])
        if writers is None:
            table = DELIVERIES if replay["kind"] == ReplayKind.RECOVER else EVENTS
            writers = self._awaited[replay["id"]] = await OpenWriters.of(self._database, table)
        return await writers.ended(_ADVANCE_SECONDS)

    async def _next_given_up(self, replay: Row) -> ReplayBatch:
        query = deliveries_to_recover(
            replay["subscription_id"], replay["since"], replay["until"], replay["cursor"], BATCH + 1
        )
        keys = [row["id"] for row in await self._database.read(query)]
        return _batch(replay, keys[:BATCH], is_last=len(keys) <= BATCH)

    async def _next_events(self, replay: Row) -> ReplayBatch:
        page = await self._database.read(_events(replay, replay["cursor"], _PAGE))
        matching = [row["id"] for row in page if _matches(replay, row)]
        if len(matching) > BATCH:
            return _batch(replay, matching[:BATCH], is_last=False)
        return _batch(replay, matching, is_last=len(page) < _PAGE, seen=[row["id"] for row in page])

    def _check(self, webhook: Row, since: datetime, now: datetime) -> None:
        if not webhook["is_active"]:
            raise BadRequest("the webhook is inactive: set is_active to true first", param="webhook_id")
        if since >= now:
            raise BadRequest("must be in the past", param="since")
        if self._retention is not None and since < now - self._retention:
            earliest = iso((now - self._retention).astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1))
            raise BadRequest(
                f"is before the retention of {self._retention.days} days: the earliest allowed is {earliest}",
                param="since",
            )

    async def _count(self, query: Any) -> int:
        return int((await self._database.read(query))[0]["count"])

    async def _count_matching(self, webhook: Row, types: Sequence[str], since: datetime, until: datetime) -> int:
        organization_id = webhook["organization_id"]
        if not webhook["filters"]:
            return await self._count(count_events(organization_id, types, since, until, MOST_DELIVERIES + 1))
        total = after = 0
        while total <= MOST_DELIVERIES:
            page = await self._database.read(
                events_to_replay(organization_id, types, since, until, after, _COUNTED_AT_ONCE)
            )
            total += sum(_matches(webhook, row) for row in page)
            if len(page) < _COUNTED_AT_ONCE:
                break
            after = page[-1]["id"]
        return total

    async def _create(
        self,
        webhook: Row,
        uid: str,
        kind: ReplayKind,
        since: datetime,
        until: datetime,
        event_types: Sequence[str] | None,
        total: int,
        by: Actor,
        most: int | None,
    ) -> dict[str, Any]:
        if total > MOST_DELIVERIES:
            raise BadRequest(
                f"more than {MOST_DELIVERIES:,} deliveries would be sent: "
                + ("narrow it with until or event_types" if kind == ReplayKind.REPLAY else "choose a later since"),
                param="since",
            )
        organization_id = webhook["organization_id"]
        row = {
            "uid": uid,
            "organization_id": organization_id,
            "subscription_id": webhook["id"],
            "kind": kind,
            "status": ReplayStatus.RUNNING,
            "since": since,
            "until": until,
            "event_types": event_types,
            "total": total,
            "sent": 0,
            "cursor": 0,
            "created_at": utc_now(),
            "ended_at": None,
        }

        async def insert(tx: Transaction) -> int | LimitReached:
            if most is not None and not await is_below(tx, organization_id, count_running_replays, most):
                return _too_many(most)
            asked = {"webhook_id": webhook["uid"], "since": iso(since), "until": iso(until), "event_types": event_types}
            await audit(tx, by, f"webhook.{kind}", uid, difference(None, {**asked, "total": total}))
            return await insert_replay(tx, row)

        key = await self._database.writer.run(insert)
        self.asked.set()
        return {**row, "id": key}

    async def _check_number(self, organization_id: int, most: int | None) -> None:
        """Raise `LimitReached` if as many replays run as may: before anything is counted."""
        if most is not None and await self._count(count_running_replays(organization_id, most)) >= most:
            raise _too_many(most)


def _too_many(most: int) -> LimitReached:
    message = f"{most:,} replays of the organization may run and do: wait until one has ended, or cancel one"
    return limit_reached("running_replays", message)


def _narrowed(subscribed: Collection[str], wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        return sorted(subscribed)
    both = sorted(set(check_event_types(wanted, as_pi=False)) & set(subscribed))
    if not both:
        raise BadRequest(
            f"the webhook subscribes to none of these; it subscribes to {', '.join(subscribed)}", param="event_types"
        )
    return both


def _events(replay: Row, after: int, limit: int) -> Any:
    return events_to_replay(
        replay["organization_id"], replay["event_types"], replay["since"], replay["until"], after, limit
    )


def _matches(subscription: Row, event: Row) -> bool:
    return matches(
        subscription["filters"],
        model=event["model"],
        task_type=event["task_type"],
        metadata=event["metadata"],
        run_uid=event["run_uid"],
    )


def _batch(replay: Row, keys: Sequence[int], *, is_last: bool, seen: Sequence[int] | None = None) -> ReplayBatch:
    processed = keys if seen is None else seen
    return ReplayBatch(
        replay_id=replay["id"],
        keys=keys,
        cursor_was=replay["cursor"],
        cursor=processed[-1] if processed else replay["cursor"],
        is_last=is_last,
    )
