"""A transaction that takes no locks before it decides: one read, then one statement that writes (`one_statement`).

It knows the statements of a webhook's update, of a delivery's outcome, of a create, and of the intent to send a task.
`load_tasks` reads the tasks with their versions, and in the same statement, so of the same moment, the subscriptions
that their events may match. All that writes is only kept, until `commit`. What is a statement by itself is kept too,
where it is all that there is: a claim of tasks, one of new idempotency keys, the saving of their responses. Anything
else raises `NotOptimistic`.

The subscriptions that a new task's event may match are those that were read with tasks, or have a read of their own,
with the callbacks that new tasks name. They may have been read before the tasks of others: a new task has no earlier
events that an ordered webhook is to get first. For the events of tasks that were read, those are used that were read
with them.

Where a task is a step, `lock_runs` is one more read, of the runs with their versions and of their steps; the tasks of
next steps are inserted by the one statement.

Why that is as safe as locks. A task that is unchanged when it is locked was not changed since it was read, so the
decision is the one that would have been made under the lock. The same is so of a run, and a step changes only together
with its run. Every event of a task comes with a change of its row, so the events of a task, and what is written with
them (deliveries, and notes of fan-outs, by which an ordered webhook is seen to be behind), are in the order of those
changes. That a webhook which is made or switched on while an event is being written may not get it is the same with
locks: its row is not locked there either.

Row keys of what is inserted are known after the commit: the lists that are returned have places until then.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NoReturn, Protocol, cast

import asyncpg
from msgspec import Struct
from sqlalchemy import text

from models import SubscriptionKind
from receiver.domain.task_state import STATE_COLUMNS, TaskState
from receiver.errors import OutcomeUnknown
from receiver.storage.optimistic import CHANGED, NEEDS_MORE, NotOptimistic
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.key_statements import AnswersSaving, KeysClaiming
from receiver.storage.postgresql.one_statement import MARK, Writes, is_new, key_at, place_of
from receiver.storage.postgresql.run_statements import READ_RUNS, new_run_arrays, run_arrays, runs_of
from receiver.storage.postgresql.statement_parts import (
    NAMED_TASKS,
    callback_arrays,
    callbacks_query,
    listener_of,
    listeners_query,
    names_of,
    state_of,
)
from receiver.storage.postgresql.task_claims import TaskClaiming
from receiver.storage.postgresql.transaction import PostgreSQLTransaction
from receiver.storage.transaction import (
    ClaimedTasks,
    Listener,
    NewDelivery,
    NewEvent,
    NewIntent,
    Settlement,
    TaskChange,
    TaskClaim,
    Values,
)

_MOST_LISTENERS = 2_000
"""Of all organizations of a batch. One that has as many has its deliveries written apart, by a statement of their own
(`receiver.events.pending_fan_outs`), so the rest need not be read."""
_VERSION = len(STATE_COLUMNS)

_READ = f"""
WITH found AS MATERIALIZED (
    SELECT {", ".join(STATE_COLUMNS)}, xmin AS version FROM task WHERE {NAMED_TASKS}
), listener AS (
    SELECT * FROM ({
    listeners_query(
        "ARRAY(SELECT organization_id FROM found)",
        "ARRAY(SELECT callback_id FROM found WHERE callback_id IS NOT NULL)",
    )
}) AS each LIMIT {_MOST_LISTENERS}
)
SELECT found.*, listener.* FROM found FULL JOIN listener ON false
"""
"""Each row is a task with its version, or a subscription."""

_READ_LISTENERS = f"""
WITH named AS MATERIALIZED (
    {callbacks_query(2)}
), listener AS (
    SELECT * FROM ({listeners_query("$1", "ARRAY(SELECT id FROM named)")}) AS each LIMIT {_MOST_LISTENERS}
)
SELECT named.*, listener.* FROM named FULL JOIN listener ON false
"""
"""Each row is a callback, or a subscription: that of a callback too, if it is active."""
_NAMED_COLUMNS = 3

_NOTHING = f"{MARK} SELECT NULL::bigint, NULL::uuid, true FROM pg_logical_emit_message(true, 'ringback', '')"
"""What a batch sends that changes nothing: a message in the server's WAL that is not read again. What was read may be
known to this server alone, after it crashed while the commit waited for a standby: the answer waits for that too."""

_KEYS = text(
    "SELECT id, uid FROM event WHERE uid = ANY(CAST(:events AS uuid[])) "
    "UNION ALL SELECT id, uid FROM delivery WHERE uid = ANY(CAST(:deliveries AS uuid[])) "
    "UNION ALL SELECT id, uid FROM task WHERE uid = ANY(CAST(:tasks AS uuid[])) "
    "UNION ALL SELECT id, uid FROM subscription WHERE uid = ANY(CAST(:callbacks AS uuid[]))"
)
_INTENTS = text(
    "SELECT 1 FROM task WHERE uid = ANY(CAST(:tasks AS uuid[])) AND submit_token = ANY(CAST(:tokens AS uuid[])) LIMIT 1"
)


class _Read(Struct, frozen=True):
    """The tasks that were read: the state of each by its row key, and their ids."""

    states: dict[int, tuple[str, int]]
    uids: set[str]


class _NeedsLocks:
    """Stands for the connection where a statement would run that is not one of those known here."""

    async def execute(self, *_: Any, **__: Any) -> NoReturn:
        raise NotOptimistic(NEEDS_MORE)

    fetch = execute


class _WholeStatement(Protocol):
    """A statement that is all of a transaction."""

    def statement(self) -> tuple[Any, ...]:
        """Return the statement and its parameters."""
        ...

    def take(self, rows: Sequence[asyncpg.Record]) -> bool:
        """Take what the statement returned; return False if it wrote nothing, because something is not as expected."""
        ...

    async def find(self, connection: CoreConnection) -> bool | None:
        """Return whether it wrote, if its answer is missing; None if that cannot be told."""
        ...


class OptimisticTransaction(PostgreSQLTransaction):
    """A transaction without locks, on the writer's connection; `mixed` is kept with that (`Writes.statement`)."""

    is_whole = True

    def __init__(self, driver: asyncpg.Connection, mixed: set[str]) -> None:
        nothing = cast(Any, _NeedsLocks())
        super().__init__(nothing, nothing)
        self._reader = driver
        self._mixed = mixed
        self._read: _Read | None = None
        self._registered: dict[int, list[Listener]] = {}
        """By organization, the registered subscriptions that were read."""
        self._callbacks: dict[int, list[Listener]] = {}
        """By row key, the callbacks that were read; none for one that is not active."""
        self._writes = Writes()
        self._whole: _WholeStatement | None = None
        self._run_uids: set[str] | None = None
        """The runs that were read."""
        self._new_run_uids: set[str] = set()
        self._keys: list[tuple[list[int], list[str]]] = []
        """The lists that were returned instead of row keys, each with the public ids of the rows."""

    async def commit(self, seconds: float) -> list[asyncpg.Record]:
        """Send the one statement; return its answer."""
        if self._whole is not None:
            if self._writes or self._read is not None or self._registered:
                raise NotOptimistic(NEEDS_MORE)
            returned: list[asyncpg.Record] = await self._reader.fetch(*self._whole.statement(), timeout=seconds)
            return returned
        statement, arguments = self._writes.statement(self._mixed) if self._writes else (_NOTHING, [])
        rows: list[asyncpg.Record] = await self._reader.fetch(statement, *arguments, timeout=seconds)
        return rows

    def confirms(self, committing: "asyncio.Task[Any]") -> bool:
        """Return whether the server's answer says that all was written; then the keys are known."""
        if committing.exception() is not None:
            return False
        rows = committing.result()
        if self._whole is not None:
            return self._whole.take(rows)
        if not any(holds for _, _, holds in rows):
            return False
        if not self._know({uid: key for key, uid, _ in rows}):
            raise OutcomeUnknown  # it cannot be; but what was written must not be written again
        return True

    async def find(self, connection: CoreConnection) -> bool | None:
        """Return whether the statement, which has ended, wrote; None if the tables do not tell. Then keys are known."""
        if self._whole is not None:
            return await self._whole.find(connection)
        if not self._writes.events:
            return await self._finds_intent(connection)
        writes = self._writes
        wanted = {
            "events": [each.uid for each in writes.events],
            "deliveries": [each.uid for each in writes.deliveries],
            "tasks": [each["uid"] for each in writes.tasks],
            "callbacks": [each["uid"] for each in writes.callbacks],
        }
        rows = (await connection.execute(_KEYS, wanted)).all()
        if not rows:
            return False
        return True if self._know({str(uid): key for key, uid in rows}) else None

    async def _finds_intent(self, connection: CoreConnection) -> bool | None:
        intents = self._writes.intents
        if not intents:
            return None
        wanted = {"tasks": [each.uid for each in intents], "tokens": [each.token for each in intents]}
        return True if (await connection.execute(_INTENTS, wanted)).first() is not None else None

    def refuse(self) -> NoReturn:
        """Say that nothing was written, because something is not as it was read."""
        raise NotOptimistic(CHANGED)

    async def load_tasks(
        self, uids: Collection[str], provider_ids: Collection[tuple[str, str]] = ()
    ) -> dict[str, TaskState]:
        """Read tasks, without locks; return them by their public id."""
        if self._read is not None:
            raise NotOptimistic(NEEDS_MORE)
        marked = {intent.uid for intent in self._writes.intents}
        rows = await self._reader.fetch(_READ, list(uids), *names_of(provider_ids))
        found = [row for row in rows if row[0] is not None]
        tasks = {state.uid: state for state in map(state_of, found)}
        if not marked.isdisjoint(tasks):
            raise NotOptimistic(NEEDS_MORE)
        self._take_listeners(
            [listener_of(row[_VERSION + 1 :]) for row in rows if row[0] is None],
            {task.organization_id for task in tasks.values()},
            {task.callback_id for task in tasks.values() if task.callback_id is not None},
        )
        self._writes.versions = {row[0]: row[_VERSION] for row in found}
        self._read = _Read({task.id: (task.status, task.attempt) for task in tasks.values()}, set(tasks))
        return tasks

    async def find_callbacks(self, wanted: Collection[tuple[int, str]]) -> dict[tuple[int, str], int]:
        """Read callbacks, and the subscriptions of their organizations that are not known yet."""
        if self._writes.callbacks:
            raise NotOptimistic(NEEDS_MORE)
        return await self._read_listeners({key for key, _ in wanted} - self._registered.keys(), wanted)

    async def insert_callbacks(self, rows: Sequence[Values]) -> list[int]:
        """Keep new callbacks; return what stands for their keys."""
        self._writes.callbacks = list(rows)
        return self._places([row["uid"] for row in rows])

    async def _read_listeners(
        self, organizations: Collection[int], wanted: Collection[tuple[int, str]]
    ) -> dict[tuple[int, str], int]:
        """Read the subscriptions of organizations and callbacks; return the row keys of the callbacks there are."""
        rows = await self._reader.fetch(
            _READ_LISTENERS,
            list(organizations),
            *callback_arrays(wanted),
        )
        found = {(row[1], row[2]): row[0] for row in rows if row[0] is not None}
        listeners = [listener_of(row[_NAMED_COLUMNS:]) for row in rows if row[0] is None]
        self._take_listeners(listeners, organizations, found.values())
        return found

    def _take_listeners(
        self, listeners: Sequence[Listener], organizations: Collection[int], callbacks: Collection[int]
    ) -> None:
        """Note the subscriptions that were read, which are all of these organizations and callbacks."""
        if len(listeners) >= _MOST_LISTENERS:
            raise NotOptimistic(NEEDS_MORE)
        self._registered.update((key, []) for key in organizations)
        self._callbacks.update((key, []) for key in callbacks)
        for each in listeners:
            if each.kind == SubscriptionKind.CALLBACK:
                self._callbacks[each.id].append(each)
            else:
                self._registered[each.organization_id].append(each)

    async def update_tasks(self, changes: Sequence[TaskChange]) -> None:
        """Keep changes of tasks that were read."""
        states = self._read.states if self._read is not None else {}
        if self._writes.changes or any(
            states.get(change.id) != (change.from_status, change.from_attempt) for change in changes
        ):
            raise NotOptimistic(NEEDS_MORE)
        self._writes.changes = list(changes)

    async def lock_runs(self, uids: Collection[str]) -> list[dict[str, Any]]:
        """Read runs with their steps, without locks."""
        if self._read is None or self._run_uids is not None:
            raise NotOptimistic(NEEDS_MORE)
        found, versions = runs_of(await self._reader.fetch(READ_RUNS, list(uids)))
        self._run_uids = {run["uid"] for run in found}
        self._writes.run_versions = dict(zip((run["id"] for run in found), versions, strict=True))
        return found

    async def write_runs(self, changed: Sequence[Values], steps: Sequence[Values], now: datetime) -> None:
        """Keep changes of runs that were read, and of their steps."""
        keys = {run["id"] for run in changed}
        is_known = keys <= self._writes.run_versions.keys() and keys.issuperset(step["run_id"] for step in steps)
        if self._writes.runs or not is_known:
            raise NotOptimistic(NEEDS_MORE)
        self._writes.runs = run_arrays(changed, steps, now)

    async def insert_runs(self, new: Sequence[Values]) -> None:
        """Keep new runs with their steps."""
        if self._writes.new_runs:
            raise NotOptimistic(NEEDS_MORE)
        self._new_run_uids = {run["uid"] for run in new}
        self._writes.new_runs = new_run_arrays(new)

    async def insert_tasks(self, rows: Sequence[Values]) -> list[int]:
        """Keep new tasks; return what stands for their keys."""
        kept = self._writes.tasks
        if kept and tuple(kept[0]) != tuple(rows[0]):
            raise NotOptimistic(NEEDS_MORE)
        kept.extend(rows)
        return self._places([row["uid"] for row in rows], len(kept) - len(rows))

    def _is_known(self, event: NewEvent) -> bool:
        """Return whether an event is of a task or a run that was read or is inserted."""
        if event.task_id is None:
            return event.run_uid in self._new_run_uids or event.run_uid in (self._run_uids or ())
        if is_new(event.task_id):
            return place_of(event.task_id) < len(self._writes.tasks)
        return self._read is not None and event.task_id in self._read.states

    async def append_events(
        self, events: Sequence[NewEvent], organization_ids: Collection[int], callback_ids: Collection[int]
    ) -> tuple[list[int], list[Listener]]:
        """Keep events of tasks that were read or are new; return what stands for their keys, and the subscriptions."""
        if not all(self._is_known(event) for event in events):
            raise NotOptimistic(NEEDS_MORE)
        new_callbacks = {key for key in callback_ids if is_new(key)}
        if any(self._is_for_new_callback(event) for event in events) or not (
            self._callbacks.keys() | new_callbacks
        ).issuperset(callback_ids):
            raise NotOptimistic(NEEDS_MORE)
        if missing := set(organization_ids) - self._registered.keys():
            await self._read_listeners(missing, ())
        kept = self._writes.events
        kept.extend(events)
        listeners = [each for key in organization_ids for each in self._registered[key]]
        listeners += [each for key in callback_ids for each in self._callbacks.get(key, ())]
        return self._places([event.uid for event in events], len(kept) - len(events)), listeners

    def _is_for_new_callback(self, event: NewEvent) -> bool:
        """Return whether a callback that is inserted would get this event; its deliveries are written with locks."""
        if event.callback_id is None or not is_new(event.callback_id):
            return False
        return event.type in self._writes.callbacks[place_of(event.callback_id)]["event_types"]

    async def insert_deliveries(self, deliveries: Sequence[NewDelivery]) -> list[int]:
        """Keep deliveries of events that are kept; return what stands for their keys."""
        known = len(self._writes.events)
        if any(row.replay_id is not None or not 0 <= place_of(row.event_id) < known for row in deliveries):
            raise NotOptimistic(NEEDS_MORE)
        kept = self._writes.deliveries
        kept.extend(deliveries)
        return self._places([row.uid for row in deliveries], len(kept) - len(deliveries))

    async def failing(self, subscription_ids: Collection[int]) -> set[int]:
        """Return none: where one that was settled for is failing, nothing is written."""
        if not {each.subscription_id for each in self._writes.settlements}.issuperset(subscription_ids):
            raise NotOptimistic(NEEDS_MORE)
        return set()

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Keep outcomes, and say that all leases are held: where one was lost, nothing is written."""
        if self._writes.settlements:
            raise NotOptimistic(NEEDS_MORE)
        first = {(each.delivery_id, each.attempt): each for each in reversed(settlements)}
        self._writes.settlements = list(first.values())
        return [first[each.delivery_id, each.attempt] is each for each in settlements]

    async def mark_sending(self, intents: Sequence[NewIntent], now: datetime) -> dict[tuple[str, int], int]:
        """Keep intents, and say that all of these tasks wait to be sent: where one does not, nothing is written."""
        names = {each.uid for each in intents}
        is_read = self._read is not None and not names.isdisjoint(self._read.uids)
        if self._writes.intents or is_read or len(names) < len(intents):
            raise NotOptimistic(NEEDS_MORE)
        self._writes.intents, self._writes.sent_at = list(intents), now
        return {(each.uid, each.attempt): key_at(place) for place, each in enumerate(intents)}

    async def claim_tasks(self, claim: TaskClaim) -> ClaimedTasks:
        """Keep a claim; what is returned is filled by the commit."""
        claiming = TaskClaiming(claim)
        self._be(claiming)
        return claiming.claimed

    async def claim_new_keys(self, keys: Sequence[Values]) -> bool:
        """Keep the claim of new keys; where one is not new, nothing is written."""
        self._be(KeysClaiming(keys))
        return True

    async def save_answers(self, answers: Sequence[Values]) -> bool:
        """Keep responses; where a claim was lost, nothing is written."""
        self._be(AnswersSaving(answers))
        return True

    def _be(self, whole: _WholeStatement) -> None:
        if self._whole is not None:
            raise NotOptimistic(NEEDS_MORE)
        self._whole = whole

    def _places(self, uids: list[str], first: int = 0) -> list[int]:
        keys = [key_at(place) for place in range(first, first + len(uids))]
        self._keys.append((keys, uids))
        return keys

    def _know(self, found: dict[str, int]) -> bool:
        """Put the row keys into the lists that stand for them; return whether all were found."""
        if any(uid not in found for _, uids in self._keys for uid in uids):
            return False
        for keys, uids in self._keys:
            keys[:] = [found[uid] for uid in uids]
        for event in self._writes.events:
            if is_new(event.task_id):
                event.task_id = found[str(event.task_uid)]
            if event.callback_id is not None and is_new(event.callback_id):
                event.callback_id = found[self._writes.callbacks[place_of(event.callback_id)]["uid"]]
        return True
