"""Stores the outcomes of attempts, many in one commit; disables the endpoints that keep failing, and tells of them."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from models import DeliveryStatus, DisabledReason, EventType
from receiver.clock import monotonic, utc_now
from receiver.domain.audit_values import webhook_difference
from receiver.domain.delivery_outcomes import GONE, has_failed_too_long
from receiver.domain.log_lines import LogLines
from receiver.domain.representations import native_webhook
from receiver.domain.system_events import delivery_dead, failing_for_long, is_death_told, webhook_failing
from receiver.events.system import SystemEvents, system_event
from receiver.storage.audit import SERVICE, Actor, audit
from receiver.storage.optimistic import may_be_optimistic
from receiver.storage.subscriptions import active_webhooks, change_subscription, set_failing_since
from receiver.storage.system import dead_deliveries, end_conditions
from receiver.storage.transaction import Settlement, Transaction
from receiver.telemetry.log import get_logger

log = get_logger("outbound.settle")


class Settler:
    """Settles attempts. Use one instance per process: its `settle` is the handler by which the writer groups items."""

    def __init__(self, system_events: SystemEvents) -> None:
        self._system_events = system_events
        self._lines = LogLines()

    @may_be_optimistic
    async def settle(self, tx: Transaction, settlements: Sequence[Settlement]) -> list[bool | Exception]:
        """Write the outcomes of attempts; return for each whether its lease was still held."""
        held = await tx.settle(settlements)
        now = utc_now()
        mine = [settlement for settlement, is_held in zip(settlements, held, strict=True) if is_held]
        outcomes: dict[int, list[Settlement]] = {}
        for each in mine:
            outcomes.setdefault(each.subscription_id, []).append(each)
        recovered: dict[int, str] = {}
        failing: list[int] = []
        for row in await self._endpoints(tx, mine):
            change = await self._update_endpoint(tx, row, outcomes[row["id"]], now)
            if change is False:
                recovered[row["id"]] = row["uid"]
            elif change:
                failing.append(row["id"])
        await set_failing_since(tx, recovered, None)
        await set_failing_since(tx, failing, now)
        await end_conditions(tx, EventType.WEBHOOK_FAILING, list(recovered.values()))
        await self._tell_dead(tx, [each for each in mine if each.status == DeliveryStatus.DEAD], now)
        return list(held)

    async def _endpoints(self, tx: Transaction, settlements: Sequence[Settlement]) -> list[dict[str, Any]]:
        """Return the active webhooks whose failure record may change: those that failed now, or were failing before."""
        failed = {each.subscription_id for each in settlements if each.status != DeliveryStatus.DELIVERED}
        recovered = await tx.failing({each.subscription_id for each in settlements} - failed)
        if not failed and not recovered:
            return []
        return await active_webhooks(tx, failed | recovered)

    async def _update_endpoint(
        self, tx: Transaction, row: dict[str, Any], outcomes: Sequence[Settlement], now: datetime
    ) -> bool | None:
        """Return whether an endpoint is failing from now on, None if that is as before.

        It is disabled here if it is gone, or has failed for too long.
        """
        if any(each.status_code == GONE and each.status != DeliveryStatus.DELIVERED for each in outcomes):
            await self._disable(tx, row, DisabledReason.GONE, now)
        elif any(each.status == DeliveryStatus.DELIVERED for each in outcomes):
            return False if row["failing_since"] is not None else None
        elif row["failing_since"] is None:
            tx.after_commit.append(partial(self._log_failing, row["uid"]))
            return True
        elif has_failed_too_long(row["failing_since"], now):
            await self._disable(tx, row, DisabledReason.FAILING, now)
        elif failing_for_long(row["failing_since"], now):
            what = (EventType.WEBHOOK_FAILING, row["uid"], row["organization_id"])
            await self._system_events.tell(tx, *what, webhook_failing(row), now)
        return None

    def _log_failing(self, webhook_id: str) -> None:
        """Log that attempts at a webhook fail from now on, also if only every other one does: once a minute."""
        if number := self._lines.due(webhook_id, monotonic()):
            log.warning("webhook failing", webhook_id=webhook_id, number=number)

    async def _disable(self, tx: Transaction, row: dict[str, Any], reason: DisabledReason, now: datetime) -> None:
        """Disable an endpoint, keep its pending deliveries, and record the event for the other webhooks."""
        tx.after_commit.append(partial(log.warning, "webhook disabled", webhook_id=row["uid"], reason=reason))
        changed = {"is_active": False, "disabled_reason": reason}
        await change_subscription(tx, row["uid"], changed, now)
        service = Actor(row["organization_id"], SERVICE)
        await audit(tx, service, "webhook.disable", row["uid"], webhook_difference(row, {**row, **changed}))
        data = {"webhook": native_webhook({**row, **changed, "updated_at": now}), "reason": reason}
        event = system_event(EventType.WEBHOOK_DISABLED, row["organization_id"], data, now)
        await self._system_events.record(tx, [event], now)

    async def _tell_dead(self, tx: Transaction, dead: Sequence[Settlement], now: datetime) -> None:
        if not dead:
            return
        attempts = {each.delivery_id: each for each in dead}
        rows = [dict(row._mapping) for row in await tx.execute(dead_deliveries(list(attempts)))]
        told = [
            system_event(
                EventType.DELIVERY_DEAD,
                row["organization_id"],
                delivery_dead(row, attempts[row["id"]].status_code, attempts[row["id"]].error),
                now,
            )
            for row in rows
            if is_death_told(row["event_type"])
        ]
        await self._system_events.record(tx, told, now)
