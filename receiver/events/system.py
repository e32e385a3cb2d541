"""System events: what an operator should know, told once while it lasts.

They are events like any other: subscribers get them (`system.*`), and the stream has them. Where the operator set
channels of their own (`RINGBACK_ALERT_URLS`), an alert is written in the same transaction, so that none is lost.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from models import EventType
from receiver.domain.ids import new_id
from receiver.domain.system_events import alert_text
from receiver.events.after_commit import AfterCommit
from receiver.events.record import record
from receiver.storage.organizations import account_owners, operators
from receiver.storage.system import begin_condition, insert_alerts
from receiver.storage.transaction import NewEvent, Transaction


class SystemEvents:
    """Records system events, and alerts for `channels`; `alerts_written` is set after each."""

    def __init__(self, after_commit: AfterCommit, channels: Sequence[str] = ()) -> None:
        self._after_commit = after_commit
        self._channels = channels
        self.alerts_written = asyncio.Event()

    async def record(self, tx: Transaction, events: Sequence[NewEvent], now: datetime) -> None:
        """Append system events, and what follows from them."""
        await record(tx, events, self._after_commit, now)
        if self._channels and events:
            await insert_alerts(tx, self._alerts(events, now))
            tx.after_commit.append(self.alerts_written.set)

    async def tell(
        self, tx: Transaction, type: EventType, subject: str, organization_id: int, data: dict[str, Any], now: datetime
    ) -> bool:
        """Record that a condition began, unless it was told before and has lasted since; return whether it was told."""
        if not await begin_condition(tx, type, subject, now):
            return False
        await self.record(tx, [system_event(type, organization_id, data, now)], now)
        return True

    async def tell_account_owners(
        self, tx: Transaction, type: EventType, provider: str, data: dict[str, Any], now: datetime
    ) -> bool:
        """Tell a condition of a provider to the organizations whose account it is; return whether it was told."""
        if not await begin_condition(tx, type, provider, now):
            return False
        owners = [row.id for row in await tx.execute(account_owners())]
        await self.record(tx, [system_event(type, owner, data, now) for owner in owners], now)
        return True

    async def tell_operator(self, tx: Transaction, type: EventType, data: dict[str, Any], now: datetime) -> None:
        """Tell the operator's organization what happened."""
        operator = [row.id for row in await tx.execute(operators())]
        await self.record(tx, [system_event(type, each, data, now) for each in operator], now)

    def _alerts(self, events: Sequence[NewEvent], now: datetime) -> list[dict[str, Any]]:
        # Several organizations may be told the same, the operator once.
        told = {(event.type, alert_text(event.type, event.snapshot)): event.uid for event in events}
        return [
            {"event_uid": uid, "channel": channel, "type": type, "text": text, "due_at": now, "created_at": now}
            for (type, text), uid in told.items()
            for channel in self._channels
        ]


def system_event(type: EventType, organization_id: int, data: Mapping[str, Any], now: datetime) -> NewEvent:
    """Return a new event about neither a task nor a run."""
    return NewEvent(
        uid=new_id(),
        organization_id=organization_id,
        task_id=None,
        task_uid=None,
        type=type,
        snapshot=dict(data),
        created_at=now,
    )
