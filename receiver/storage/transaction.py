"""What a write may do inside the writer's transaction: any Core statement, and the few hot statements by name.

Why the hot statements take lists: the writer runs one transaction for all writes that wait, and what a statement costs
is mostly the round trip to the database and its planning, not the rows. So each hot statement writes any number of
items in one round trip (arrays through `unnest` on PostgreSQL, `executemany` and `json_each` on SQLite), and its text
does not depend on their number, so that the database prepares it once. One webhook takes the same path as 500.

Both databases implement the protocol `Transaction`, and `tests/storage/test_conformance*.py` holds them to the same
behaviour.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import orjson
from msgspec import Struct, field
from sqlalchemy import Executable, Row

from models import SubscriptionKind
from receiver.domain.task_state import TaskState

Values = Mapping[str, Any]


class TaskChange(Struct, frozen=True):
    """New values for columns of one task's row, with the state on which they were decided as a guard."""

    id: int
    from_status: str
    from_attempt: int
    values: dict[str, Any] = field(default_factory=dict)


class NewEvent(Struct, kw_only=True):
    """An event to insert. The fields that are not columns (`callback_id`, `model` and so on) decide who receives it."""

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
    request_id: str | None = None


class NewDelivery(Struct, frozen=True, kw_only=True):
    """A delivery to insert; `attempt` is 1 if it is leased to this process at once, otherwise 0."""

    uid: str
    organization_id: int
    subscription_id: int
    event_id: int
    task_id: int | None
    attempt: int
    due_at: datetime | None
    """None while its subscription is switched off."""
    created_at: datetime
    replay_id: int | None = None


class Listener(Struct, frozen=True):
    """The part of an active subscription that matching events needs."""

    id: int
    organization_id: int
    kind: SubscriptionKind
    event_types: frozenset[str]
    ordered: bool = False
    filters: Values | None = None
    is_behind: bool = False
    """Of an ordered one, whether deliveries of earlier events of its organization are still to be written."""
    inactive_since: datetime | None = None
    """When one that is switched off was changed last: it may have been active until then."""


SendQueue = tuple[int, bool]
"""A queue of tasks that wait to be sent: the organization's row key, and whether they were created in bulk."""


class TaskContent(Struct, frozen=True):
    """What a claimed task is to send, its documents as the database has them, and when the task last changed."""

    updated_at: datetime
    input: Any
    config: Any

    def documents(self) -> tuple[Any, Any]:
        """Return the input and the config, decoded: each task is for itself, and not in the transaction of the claim.

        SQLite has a document that is a number as a number.
        """
        input, config = (orjson.loads(each) if isinstance(each, str) else each for each in (self.input, self.config))
        return input, config


class DueTask(Struct, frozen=True):
    """A claimed task: its state before the claim, and when its newest create call began (None if there was none)."""

    state: TaskState
    submitted_at: datetime | None
    queue: SendQueue | None = None
    """The queue that it waited in, if it waits to be sent."""
    content: TaskContent | None = None
    """What it is to send, if it waits to be sent; None for more than `SMALL_BYTES`, which are read when it is sent."""


FIRST_QUEUE: SendQueue = (0, False)
"""What stands for the last queue before any has had its turn."""


class TaskClaim(Struct, frozen=True):
    """Which due tasks to claim: at most `polls` that were sent, and at most `unsent` that wait to be sent."""

    now: datetime
    lease_until: datetime
    polls: int = 0
    polled_after: int = 0
    """The organization whose turn was last; 0 is before the first."""
    unsent: int = 0
    sent_after: SendQueue = FIRST_QUEUE
    """The queue whose turn was last."""


class ClaimedTasks(Struct):
    """The tasks of a claim, those to be polled first, and of which kind more may be due than it was to take."""

    tasks: list[DueTask] = field(default_factory=list)
    may_be_more_polls: bool = False
    may_be_more_unsent: bool = False


class NewIntent(Struct, frozen=True):
    """The intent to send one attempt of a task, with its own token, under a lease until `lease_until`."""

    uid: str
    attempt: int
    token: str
    lease_until: datetime


class LeasedDelivery(Struct, frozen=True):
    """A delivery that this process may send until `lease_until`; only the holder of `attempt` may settle it."""

    id: int
    subscription_id: int
    attempt: int
    lease_until: datetime
    organization_id: int


class Settlement(Struct, frozen=True, kw_only=True):
    """The outcome of one attempt at a delivery: the delivery's new state, and the columns of the attempt's row."""

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


Trace = Callable[[], Executable]
"""Returns a query that finds a row which a transaction wrote."""


class Transaction(Protocol):
    """One transaction of the writer. Each method writes or reads any number of items with one statement, or a few."""

    after_commit: list[Callable[[], None]]
    """Called in order when the transaction is known to be on disk, and not at all if it fails. They may neither raise
    nor block."""
    bookkeeping: list[Callable[[], None]]
    """Called after those, perhaps a little later: what no one waits for, such as log records."""

    def leaves(self, trace: Trace, *, is_lasting: bool = False) -> None:
        """Note a query that finds a row if this transaction was committed, and none if it was not.

        It costs nothing, for it is only made and run where the answer to the commit is missing. `is_lasting` if nothing
        removes or changes that row later, so that not finding it proves that the transaction was not committed. Tasks,
        events and deliveries that are inserted are such evidence by themselves
        (`receiver.storage.postgresql.commit_evidence`).
        """
        ...

    async def execute(self, statement: Executable, parameters: Sequence[Values] | None = None) -> Sequence[Row[Any]]:
        """Run a SQLAlchemy Core statement; return its rows, or an empty sequence."""
        ...

    async def write_to_disk(self) -> None:
        """Write a few bytes that mean nothing and stay in no table: the commit then has to reach the disk."""
        ...

    async def claim_new_keys(self, keys: Sequence[Values]) -> bool:
        """Insert idempotency keys, with all columns but those of a response; return whether that was done.

        Only an optimistic transaction does it, with one statement that writes nothing if one of them is there.
        """
        ...

    async def save_answers(self, answers: Sequence[Values]) -> bool:
        """Save responses under claims; return whether that was done. A response has `scope` and `owner` of its claim.

        Only an optimistic transaction does it, with one statement that writes nothing if one of the claims is lost.
        """
        ...

    async def load_tasks(
        self, uids: Collection[str], provider_ids: Collection[tuple[str, str]] = ()
    ) -> dict[str, TaskState]:
        """Lock tasks in the order of their row keys; return them by their public id.

        They are the tasks with these public ids, and those whose present attempt is one of these (provider, provider's
        id). One that does not exist is left out.
        """
        ...

    async def update_tasks(self, changes: Sequence[TaskChange]) -> None:
        """Write changed columns. Raises `RuntimeError` if a row is not in the state that its change was decided on."""
        ...

    async def insert_tasks(self, rows: Sequence[Values]) -> list[int]:
        """Insert whole rows, which all have the same columns; return their row keys in order.

        The column `stored_bytes` is not among them: it is counted here (`receiver.storage.stored_bytes`).
        """
        ...

    async def find_callbacks(self, wanted: Collection[tuple[int, str]]) -> dict[tuple[int, str], int]:
        """Return the row keys of clients' own callbacks, by organization and fingerprint."""
        ...

    async def insert_callbacks(self, rows: Sequence[Values]) -> list[int]:
        """Insert the subscriptions of clients' own callbacks; return their row keys in order."""
        ...

    async def lock_runs(self, uids: Collection[str]) -> list[dict[str, Any]]:
        """Lock runs in the order of their row keys; return each one's row, with the rows of its steps as `steps`.

        It has its organization's id as `organization_uid`. The `spec` of a step is its document's text, because who
        reads it knows most of them already.
        """
        ...

    async def write_runs(self, changed: Sequence[Values], steps: Sequence[Values], now: datetime) -> None:
        """Write the columns of locked runs and of steps that may change; the runs are updated `now`."""
        ...

    async def insert_runs(self, new: Sequence[Values]) -> None:
        """Insert runs, each with its `steps`; a run and a step have all columns but the keys."""
        ...

    async def insert_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Insert events; return their sequence numbers in order.

        Lists of row keys are for `after_commit`, and to be passed on: an optimistic transaction fills them by then.
        """
        ...

    async def append_events(
        self, events: Sequence[NewEvent], organization_ids: Collection[int], callback_ids: Collection[int]
    ) -> tuple[list[int], list[Listener]]:
        """Do what `insert_events` does with these events, and return what `listeners` does, in one round trip."""
        ...

    async def insert_deliveries(self, deliveries: Sequence[NewDelivery]) -> list[int]:
        """Insert deliveries; return their row keys in order."""
        ...

    async def listeners(self, organization_ids: Collection[int], callback_ids: Collection[int]) -> list[Listener]:
        """Return the active registered subscriptions of these organizations, and the active ones of these callbacks."""
        ...

    async def listeners_after(
        self, organization_id: int, after: int, until: int, since: datetime, limit: int
    ) -> list[Listener]:
        """Return an organization's next registered subscriptions, in the order of their row keys.

        They are those behind the key `after`, up to `until`, that are active or were changed after `since`.
        """
        ...

    async def claim_tasks(self, claim: TaskClaim) -> ClaimedTasks:
        """Claim due tasks of both kinds, on PostgreSQL in one round trip.

        Of those that were sent, or may have been: as many of each organization, the oldest of each first. If one has
        fewer, the others have more; but fewer than wanted may be claimed although more are due. The organizations take
        turns in the order of their row keys. No more rows are read and locked than are claimed, but for one of each
        organization that has tasks under way.

        Of those that wait to be sent: one from each queue in turn, the oldest of each queue first. The queues take
        turns in the order of organization and `bulk`. Their `submission` stays `waiting`;
        `receiver.storage.leases.mark_sending` changes it when the call begins.

        Like lists of row keys, an optimistic transaction fills what is returned with its commit.
        """
        ...

    async def mark_sending(self, intents: Sequence[NewIntent], now: datetime) -> dict[tuple[str, int], int]:
        """Lock tasks in the order of their row keys, and mark those as being sent that wait for it at these attempts.

        Those whose provider is to be asked to cancel them are left out. Return the row keys of the others by their id
        and attempt. No two of the intents are for the same attempt. An optimistic transaction returns no real keys.
        """
        ...

    async def claim_deliveries(
        self,
        now: datetime,
        lease_until: datetime,
        limit: int,
        skip: Collection[int],
        *,
        of_organization: int,
        skip_organizations: Collection[int],
    ) -> list[LeasedDelivery]:
        """Claim due deliveries, at most `limit` of each subscription, oldest first; adds 1 to each `attempt`.

        At most `of_organization` are claimed of an organization, shared evenly by its subscriptions: of one with more
        subscriptions than that, one each of those that have waited longest. Subscriptions in `skip`, and those of
        `skip_organizations`, are left out. Where a subscription is ordered, so is a delivery whose task has an earlier
        one that is still pending.
        """
        ...

    async def failing(self, subscription_ids: Collection[int]) -> set[int]:
        """Return those of these subscriptions whose `failing_since` is set."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Write outcomes of attempts; the result is False for one whose lease was lost to another attempt."""
        ...
