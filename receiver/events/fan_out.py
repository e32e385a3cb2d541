"""Which organizations have very many webhooks, so that writing an event for them is heavy, and whose tasks those are.

An event is matched with each webhook of its organization, and a delivery is written for each that matches. The writer
has to know that before it takes such a write into a batch with those of others (`receiver.storage.write_queue`). Of a
provider's webhook it is known only if this process has seen its task before; otherwise the transaction that finds it
out puts it off.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from receiver.storage.queued_write import PutOff
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

    def begin(self, webhooks: Mapping[int, int]) -> None:
        """Take the number of active webhooks of organizations with more than `MANY_WEBHOOKS`, at the start."""
        self._rows = dict(webhooks)

    def put_off(self, tasks: Iterable[tuple[str, int] | None]) -> dict[int, PutOff]:
        """Return which updates of a transaction to put off, by their position, and remember whose their tasks are.

        `tasks` has the task's id and its organization for each update, None for one without a task. Put off are those
        of organizations with many webhooks of which that was not known when they were queued.
        """
        if not self._rows:
            return {}
        found: dict[int, PutOff] = {}
        unknown: list[tuple[str, int]] = []
        for position, task in enumerate(tasks):
            if task is not None and task[1] in self._rows and task[0] not in self._owners:
                found[position] = PutOff(task[1], self._rows[task[1]])
                unknown.append(task)
        for task_uid, organization_id in unknown:
            self._remember(task_uid, organization_id)
        return found

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
                self._remember(event.task_uid, event.organization_id)

    def _remember(self, task_uid: str, organization_id: int) -> None:
        self._owners[task_uid] = organization_id
        if len(self._owners) > _MOST_TASKS:
            self._owners.popitem(last=False)
