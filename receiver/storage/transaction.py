"""What a write may do inside the writer's transaction: any Core statement, and the few hot ones by name.

What is made for every webhook or delivery is not frozen: that costs thrice the time.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Executable, Row

from models import SubscriptionKind
from receiver.domain.transitions import TaskState

Values = Mapping[str, Any]


@dataclass(slots=True)
class TaskChange:
    """New values for columns of one task's row, guarded by the state that they were decided on."""

    id: int
    from_status: str
    from_attempt: int
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class NewEvent:
    """An event to be written. What is not in its row says who may hear of it."""

    uid: str
    organization_id: int
    task_id: int | None
    task_uid: str | None
    type: str
    snapshot: dict[str, Any]
    created_at: datetime
    callback_id: int | None = None
    model: str | None = None
    task_type: str | None = None
    metadata: dict[str, Any] | None = None
    run_uid: str | None = None


@dataclass(slots=True, kw_only=True)
class NewDelivery:
    """A delivery to be written, with `attempt` 1 where it is leased to this process already."""

    uid: str
    organization_id: int
    subscription_id: int
    event_id: int
    task_id: int | None
    attempt: int
    due_at: datetime
    created_at: datetime
    replay_id: int | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """An active subscription, as far as matching needs it."""

    id: int
    organization_id: int
    kind: SubscriptionKind
    event_types: frozenset[str]
    ordered: bool = False
    filters: Values | None = None


SendQueue = tuple[int, bool]
"""Where tasks wait to be sent: an organization's, apart for those of bulk calls."""


@dataclass(frozen=True, slots=True)
class DueTask:
    """A claimed task: its state before the claim, and when its present attempt's create call began."""

    state: TaskState
    submitted_at: datetime | None
    queue: SendQueue | None = None
    """The line that it stood in, if it waited to be sent."""


@dataclass(slots=True)
class LeasedDelivery:
    """A delivery that this process may send until `lease_until`: only who holds `attempt` may settle it."""

    id: int
    subscription_id: int
    attempt: int
    lease_until: datetime


@dataclass(slots=True, kw_only=True)
class Settlement:
    """What came of one attempt at a delivery."""

    delivery_id: int
    subscription_id: int
    attempt: int
    status: str
    due_at: datetime | None
    settled_at: datetime | None
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    response: str


class Transaction(Protocol):
    """One transaction of the writer. Every statement is for 1 or for 500 items."""

    after_commit: list[Callable[[], None]]
    """Called once it is on disk, in order. They must not raise and must not wait."""

    async def execute(self, statement: Executable, parameters: Sequence[Values] | None = None) -> Sequence[Row[Any]]:
        """Run a SQLAlchemy Core statement; return its rows, or none."""
        ...

    async def load_tasks(
        self, uids: Collection[str], provider_ids: Collection[tuple[str, str]] = ()
    ) -> dict[str, TaskState]:
        """Lock tasks in the order of their keys; return them by their outer id.

        They are those with these outer ids, and those that have these (provider, provider's id) for their present
        attempt; what is not there is left out.
        """
        ...

    async def update_tasks(self, changes: Sequence[TaskChange]) -> None:
        """Write changed columns. Raises if a row is no longer as it was when it was loaded."""
        ...

    async def insert_tasks(self, rows: Sequence[Values]) -> list[int]:
        """Insert whole rows, which all name the same columns; return their keys in order."""
        ...

    async def insert_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Append events; return their sequence numbers in order."""
        ...

    async def insert_deliveries(self, deliveries: Sequence[NewDelivery]) -> list[int]:
        """Insert deliveries; return their keys in order."""
        ...

    async def listeners(self, organization_ids: Collection[int], callback_ids: Collection[int]) -> list[Listener]:
        """Return the active registered subscriptions of these organizations, and these callbacks if active."""
        ...

    async def claim_polls(self, now: datetime, lease_until: datetime, limit: int) -> list[DueTask]:
        """Take due tasks that were sent, or may have been, oldest first, by moving `due_at`."""
        ...

    async def claim_unsent(self, now: datetime, lease_until: datetime, limit: int, after: SendQueue) -> list[DueTask]:
        """Take due tasks that wait to be sent, by moving `due_at`: one of each line in turn, oldest first in each.

        The lines take their turns in order, the one after `after` first. The tasks still wait, as far as their rows
        say: that one is being sent is written when its call begins.
        """
        ...

    async def claim_deliveries(
        self, now: datetime, lease_until: datetime, limit: int, skip: Collection[int]
    ) -> list[LeasedDelivery]:
        """Take due deliveries, at most `limit` of each subscription, oldest first; counts `attempt` up.

        None of the subscriptions in `skip`; and where a subscription is ordered, none whose task has an earlier
        delivery that is still pending.
        """
        ...

    async def failing(self, subscription_ids: Collection[int]) -> set[int]:
        """Return those of these subscriptions that have failed since their last success."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Write outcomes of attempts; False for one whose lease was lost to another attempt."""
        ...
