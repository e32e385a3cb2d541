"""Which organizations have very many webhooks, so that writing an event for them is heavy, and whose tasks those are.

An event is matched with each webhook of its organization, and a delivery is written for each that matches. The writer
has to know that before it takes such a write into a batch with those of others (`receiver.storage.write_queue`). What
is known here was seen in this process: the first event of an organization after a start is not known to be heavy.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from receiver.storage.transaction import Listener, NewDelivery, NewEvent

MANY_WEBHOOKS = 20
"""An organization with more webhooks than this is looked at."""
_MATCHES_A_ROW = 40
"""Matching an event with this many webhooks takes about as long as writing one delivery."""
_MOST_TASKS = 200_000


class FanOut:
    """The rows that an event of an organization with many webhooks leads to, and the newest tasks of those."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._owners: OrderedDict[str, int] = OrderedDict()

    def rows(self, organization_id: int | None, events: int = 1) -> int:
        """Return how many rows this many events lead to, or 0 where those are few."""
        return 0 if organization_id is None else events * self._rows.get(organization_id, 0)

    def owner(self, task_uid: str | None) -> int | None:
        """Return the organization of a task, if that has many webhooks and the task is known here."""
        return self._owners.get(task_uid) if self._owners and task_uid is not None else None

    def note(
        self, listeners: Sequence[Listener], events: Iterable[NewEvent], deliveries: Iterable[NewDelivery]
    ) -> None:
        """Remember what the rows of a transaction show; `listeners` are all of the events' organizations."""
        if len(listeners) <= MANY_WEBHOOKS and not self._rows:
            return
        webhooks = Counter(listener.organization_id for listener in listeners)
        told = Counter(event.organization_id for event in events)
        written = Counter(delivery.organization_id for delivery in deliveries)
        for organization_id, count in told.items():
            rows = webhooks[organization_id] // _MATCHES_A_ROW + written[organization_id] // count
            if webhooks[organization_id] > MANY_WEBHOOKS and rows > 1:
                self._rows[organization_id] = rows
            else:
                self._rows.pop(organization_id, None)
        for event in events:
            if event.organization_id in self._rows and event.task_uid is not None:
                self._owners[event.task_uid] = event.organization_id
                if len(self._owners) > _MOST_TASKS:
                    self._owners.popitem(last=False)
