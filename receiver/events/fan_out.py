"""Writes deliveries of events of an organization with many webhooks, some at a time.

`receiver.events.pending_fan_outs` says why.

Each piece is one write among others: it ends after `MOST_DELIVERIES`, and where it ended is written in the same
transaction. So a crash neither loses a delivery nor writes one twice. An organization's events are taken in their
order, and one process at a time takes them, so that deliveries of one task to one webhook keep their order too.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from itertools import takewhile

from msgspec.structs import replace

from receiver.clock import utc_now
from receiver.events.after_commit import AfterCommit
from receiver.events.new_deliveries import insert_deliveries, new_delivery, receives
from receiver.storage.fan_outs import FanOutEvent, advance_fan_outs, first_fan_outs
from receiver.storage.organizations import lock_organization
from receiver.storage.transaction import Listener, NewDelivery, Transaction

MOST_DELIVERIES = 50
"""Of one piece."""
_MOST_LISTENERS = 100
"""Subscriptions that one piece looks at."""
_MOST_EVENTS = 10
_MOST_MATCHES = 2_000
"""Of one piece: each event with each subscription. At least one event is matched."""


class Progress(Enum):
    """How far the deliveries of an organization's events are."""

    ALL_WRITTEN = "all written"
    SOME_LEFT = "some left"
    ELSEWHERE = "another process writes them now"


class FanOutWriter:
    """Writes pieces. One instance per process: the writer groups by its handler `write`."""

    def __init__(self, after_commit: AfterCommit) -> None:
        self._after_commit = after_commit

    async def write(self, tx: Transaction, organizations: Sequence[int]) -> list[Progress | Exception]:
        """Write a piece of each of these organizations; return how far each is then."""
        now = utc_now()
        return [await self._write(tx, organization_id, now) for organization_id in organizations]

    async def _write(self, tx: Transaction, organization_id: int, now: datetime) -> Progress:
        if not await lock_organization(tx, organization_id, skip_locked=True):
            return Progress.ELSEWHERE
        waiting = await first_fan_outs(tx, organization_id, _MOST_EVENTS)
        if not waiting:
            return Progress.ALL_WRITTEN
        first = waiting[0]
        page = await tx.listeners_after(organization_id, first.after, first.until, first.created_at, _MOST_LISTENERS)
        is_last_page = len(page) < _MOST_LISTENERS
        if first.after == 0 and is_last_page:
            active = sum(each.inactive_since is None for each in page)
            self._after_commit.pending_fan_outs.note(organization_id, active)
        most = max(1, _MOST_MATCHES // max(1, len(page)))
        together = list(takewhile(lambda event: _place(event) == _place(first), waiting))[:most]
        deliveries: list[NewDelivery] = []
        done: list[int] = []
        begun: dict[int, int] = {}
        for event in together:
            looked_at = self._add(event, page, deliveries, now)
            if looked_at == len(page) and is_last_page:
                done.append(event.id)
            elif looked_at:
                begun[event.id] = page[looked_at - 1].id
            if looked_at < len(page):
                break
        await insert_deliveries(tx, deliveries, self._after_commit)
        await advance_fan_outs(tx, done, begun)
        return Progress.ALL_WRITTEN if len(done) == len(waiting) < _MOST_EVENTS else Progress.SOME_LEFT

    def _add(self, event: FanOutEvent, page: Sequence[Listener], deliveries: list[NewDelivery], now: datetime) -> int:
        """Add an event's deliveries until there are `MOST_DELIVERIES`; return how many of the page were looked at."""
        for looked_at, listener in enumerate(page):
            if len(deliveries) >= MOST_DELIVERIES:
                return looked_at
            inactive_since = listener.inactive_since
            if inactive_since is not None and inactive_since < event.created_at:
                continue
            if receives(listener, event):
                delivery = new_delivery(event, event.id, listener, self._after_commit, now)
                if inactive_since is not None:  # it is sent when the webhook is switched on again
                    delivery = replace(delivery, attempt=0, due_at=None)
                deliveries.append(delivery)
        return len(page)


def _place(event: FanOutEvent) -> tuple[int, int]:
    return event.after, event.until
