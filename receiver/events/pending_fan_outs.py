"""Which organizations have many webhooks, and which of them have events whose deliveries are still to be written.

Why: an event of an organization with a thousand webhooks leads to a thousand deliveries. Written with the event, they
would hold up the writes of everybody else. So such an event is written with a note alone, which is as durable as it
is, and its deliveries follow, some at a time (`receiver.events.fan_out`, `receiver.workers.fan_out`).
"""

import asyncio
from collections.abc import Iterable

MANY_WEBHOOKS = 50
"""Of an organization with more webhooks than this, deliveries are written after their event."""


class PendingFanOuts:
    """What this process knows of organizations with many webhooks. Of others it learns when it next matches an event.

    `waiting` are the organizations that have new events with deliveries to be written, and `asked` is set when there
    is one more.
    """

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.asked = asyncio.Event()
        self._many: set[int] = set()

    def has_many(self, organization_id: int) -> bool:
        """Return whether the organization is known to have many webhooks."""
        return organization_id in self._many

    def note(self, organization_id: int, webhooks: int) -> None:
        """Take an organization's number of active webhooks."""
        if webhooks > MANY_WEBHOOKS:
            self._many.add(organization_id)
        else:
            self._many.discard(organization_id)

    def wake(self, organizations: Iterable[int]) -> None:
        """Have deliveries of these organizations written."""
        self.waiting.update(organizations)
        self.asked.set()
