"""The part of a report about deliveries: each event of each subscription is delivered, waits, was given up, or is
filtered.

Three sources are compared. How many events a webhook subscribes to comes from the log alone; how its deliveries stand,
from the deliveries; and for each event without one, `receiver.domain.matching` is asked what the filters say of it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from receiver.domain.gaps import GapKind
from receiver.domain.matching import matches
from receiver.reporting.findings import Account, Findings, Listing
from receiver.storage.database import Snapshot
from receiver.storage.report import deliveries as queries
from receiver.storage.report.subscriptions import ReportedWebhook
from receiver.storage.report.window import Chunk

Row = Mapping[str, Any]

_FIELDS = {
    queries.DELIVERED: "delivered",
    queries.DEAD: "dead",
    queries.CANCELLED: "cancelled",
    queries.WAITING: "waiting",
    queries.OVERDUE: "waiting",
    GapKind.DELIVERY_UNPROVEN: "delivered",
    GapKind.DELIVERY_CANCELLED: "cancelled",
    GapKind.DELIVERY_NOT_DUE: "waiting",
    GapKind.DELIVERY_DOUBLED: "doubled",
}
"""How a delivery stands, and the field of an account that counts it; a gap is listed besides."""
_IDS = ("webhook_id", "event_id", "event_type", "task_id")


class DeliveryReport:
    """Adds the events of chunks to the findings. `has_callbacks`: whether the organization has callbacks of clients."""

    def __init__(
        self, snapshot: Snapshot, findings: Findings, webhooks: Iterable[ReportedWebhook], *, has_callbacks: bool
    ) -> None:
        self._snapshot = snapshot
        self._findings = findings
        self._webhooks = {webhook.key: webhook for webhook in webhooks}
        self._has_callbacks = has_callbacks
        self._totals = {key: Account() for key in self._webhooks}
        findings.webhooks = [(webhook, self._totals[key]) for key, webhook in self._webhooks.items()]

    async def add(self, chunk: Chunk) -> None:
        """Add the events of a chunk."""
        events = Counter({row["type"]: row["count"] for row in await self._snapshot.read(queries.count_events(chunk))})
        self._findings.events += events
        if not events:
            return
        accounts = {key: Account() for key in self._webhooks}
        callbacks = Account()
        await self._count_deliveries(chunk, accounts, callbacks)
        for key, webhook in self._webhooks.items():
            await self._explain(chunk, webhook, accounts[key], events)
            self._totals[key].add(accounts[key])
        if self._has_callbacks:
            await self._explain_callbacks(chunk, callbacks)
        self._findings.callbacks.add(callbacks)

    async def _count_deliveries(self, chunk: Chunk, accounts: Mapping[int, Account], callbacks: Account) -> None:
        to_list: Counter[str] = Counter()
        for row in await self._snapshot.read(queries.count_deliveries(chunk)):
            standing, count = row["standing"], row["count"]
            to_list[standing] += count
            field = _FIELDS[standing]
            if not row["is_own"]:
                self._findings.replays[field] += count
                continue
            account = callbacks if row["webhook_key"] is None else accounts.get(row["webhook_key"])
            if account is None:  # removed before the range began
                continue
            if not self._is_subscribed(row):
                field = "earlier_settings"
            setattr(account, field, getattr(account, field) + count)
        for standing, count in to_list.items():
            listing = self._listing(standing)
            if listing is not None:
                found = queries.deliveries_standing(chunk, standing, listing.room)
                listing.add(count, await self._snapshot.read(found) if listing.room else [])

    def _is_subscribed(self, row: Row) -> bool:
        """Return whether a subscription would get events of this type now. A callback never changes."""
        if row["webhook_key"] is None:
            return True
        return bool(row["is_within"]) and row["event_type"] in self._webhooks[row["webhook_key"]].event_types

    def _listing(self, standing: str) -> Listing | None:
        if standing == queries.DEAD:
            return self._findings.dead
        if standing == queries.OVERDUE:
            return self._findings.overdue_deliveries
        return self._findings.gap(GapKind(standing)) if standing in list(GapKind) else None

    async def _explain(self, chunk: Chunk, webhook: ReportedWebhook, account: Account, events: Row) -> None:
        """Count the events that a webhook subscribes to, and class those that it has no delivery of."""
        is_within = chunk.window.since < webhook.created_at <= chunk.window.until
        is_whole_range = not is_within and webhook.deleted_at is None
        if is_whole_range:
            account.events = sum(events[type] for type in webhook.event_types & events.keys())
        else:
            (row,) = await self._snapshot.read(queries.count_events_for(chunk, webhook))
            account.events = row["count"]
        if not account.without_delivery:
            return
        for group in await self._snapshot.read(queries.undelivered(chunk, webhook)):
            field = _reason(webhook, group)
            setattr(account, field, getattr(account, field) + group["count"])
        if account.missing:
            listing = self._findings.gap(GapKind.DELIVERY_MISSING)
            listing.add(account.missing, await self._missing(chunk, webhook) if listing.room else [])

    async def _missing(self, chunk: Chunk, webhook: ReportedWebhook) -> list[Row]:
        rows = await self._snapshot.read(queries.undelivered_events(chunk, webhook))
        return [_ids({**row, "webhook_id": webhook.uid}) for row in rows if _reason(webhook, row) == "missing"]

    async def _explain_callbacks(self, chunk: Chunk, account: Account) -> None:
        for row in await self._snapshot.read(queries.count_callback_events(chunk)):
            if row["type"] in row["event_types"]:
                account.events += row["count"]
                account.missing += row["count"] - row["delivered_to"]
        if account.missing:
            listing = self._findings.gap(GapKind.DELIVERY_MISSING)
            rows = await self._snapshot.read(queries.callback_events_undelivered(chunk)) if listing.room else []
            missing = [_ids(row) for row in rows if row["event_type"] in row["event_types"]]
            listing.add(account.missing, missing)


def _reason(webhook: ReportedWebhook, event: Row) -> str:
    """Return the field of an account for an event that the webhook subscribes to and has no delivery of."""
    if not event["is_settled"] or webhook.deleted_at is not None:
        return "unknown"
    if not webhook.is_active:
        return "switched_off"
    is_match = matches(
        webhook.filters,
        model=event["model"],
        task_type=event["task_type"],
        metadata=event["metadata"],
        run_uid=event["run_uid"],
    )
    if not is_match:
        return "filtered"
    if event["is_to_be_written"]:
        return "waiting"
    return "missing" if event["is_known"] else "unknown"


def _ids(row: Row) -> dict[str, Any]:
    return {name: row.get(name) for name in _IDS}
