"""The hot statements on SQLite.

The methods are coroutines because the protocol has coroutines; none of them waits. Many items are few statements, as on
PostgreSQL: keys are passed as one JSON array (`json_each`), rows to write as one `executemany` for each set of columns.
The writer's transaction holds SQLite's only write lock, so nothing needs to be locked by row or skipped because it is.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Executable, Row

from models import DeliveryStatus, Submission, SubscriptionKind
from receiver.domain.task_state import STATE_COLUMNS, TaskState
from receiver.storage import callbacks
from receiver.storage.callbacks import CallbackKey
from receiver.storage.large_rows import SMALL_BYTES
from receiver.storage.sqlite import intent_statements, run_statements
from receiver.storage.sqlite.statement_parts import encoded, next_key, placeholders
from receiver.storage.sqlite.values import decoder_of, read_moment, write_document, write_moment
from receiver.storage.stored_bytes import DOCUMENTS, stored_size
from receiver.storage.tables import deliveries as delivery_table
from receiver.storage.tables import tasks
from receiver.storage.transaction import (
    ClaimedTasks,
    DueTask,
    LeasedDelivery,
    Listener,
    NewDelivery,
    NewEvent,
    NewIntent,
    SendQueue,
    Settlement,
    TaskChange,
    TaskClaim,
    TaskContent,
    Trace,
    Values,
)

_STATE = ", ".join(STATE_COLUMNS)
_STATE_DECODERS = [
    (index, decode)
    for index, name in enumerate(STATE_COLUMNS)
    if (decode := decoder_of(tasks.columns[name].type)) is not None
]

_IS_DUE = f"""due.due_at IS NOT NULL AND due.due_at <= :now AND NOT ({{ordered}} AND EXISTS (
    SELECT 1 FROM delivery AS earlier
    WHERE earlier.task_id = due.task_id AND earlier.subscription_id = due.subscription_id
    AND earlier.id < due.id AND earlier.status = '{DeliveryStatus.PENDING}'
))"""
_DUE_ENDPOINTS = f"""
WITH RECURSIVE endpoint(id) AS (
    SELECT min(subscription_id) FROM delivery WHERE due_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(subscription_id) FROM delivery WHERE due_at IS NOT NULL AND subscription_id > endpoint.id)
    FROM endpoint WHERE endpoint.id IS NOT NULL
)
SELECT subscription.organization_id, (
    SELECT due.due_at FROM delivery AS due
    WHERE due.subscription_id = endpoint.id AND {_IS_DUE.format(ordered="subscription.ordered")}
    ORDER BY due.due_at LIMIT 1
) AS oldest, endpoint.id, subscription.ordered
FROM endpoint JOIN subscription ON subscription.id = endpoint.id
WHERE endpoint.id NOT IN (SELECT value FROM json_each(:skip))
AND subscription.organization_id NOT IN (SELECT value FROM json_each(:skip_organizations))
AND oldest IS NOT NULL ORDER BY subscription.organization_id, oldest, endpoint.id
"""
"""The subscriptions with a delivery to claim, those of each organization in the order of their oldest one.

`endpoint` lists the subscriptions that have deliveries to send, by jumping from one to the next in `ix_delivery_due`: a
subscription with a million of them is one step, and costs the others nothing.
"""
_DUE_DELIVERIES = f"""
SELECT due.due_at, due.id, due.subscription_id, due.attempt + 1, due.organization_id FROM delivery AS due
WHERE due.subscription_id = :endpoint AND {_IS_DUE.format(ordered=":ordered")}
ORDER BY due.due_at, due.id LIMIT :limit
"""
"""The first due deliveries of one subscription. The UPDATE that follows adds 1 to each `attempt`, hence + 1 here."""

_LISTENERS = f"""
SELECT id, organization_id, kind, event_types, ordered, filters, ordered AND EXISTS (
    SELECT 1 FROM fan_out WHERE fan_out.organization_id = subscription.organization_id
) FROM subscription
WHERE is_active AND deleted_at IS NULL AND kind = '{SubscriptionKind.REGISTERED}'
AND organization_id IN (SELECT value FROM json_each(?))
UNION ALL
SELECT id, organization_id, kind, event_types, ordered, filters, 0 FROM subscription
WHERE is_active AND deleted_at IS NULL AND id IN (SELECT value FROM json_each(?))
"""

_LISTENERS_AFTER = f"""
SELECT id, event_types, ordered, filters, CASE WHEN is_active THEN NULL ELSE updated_at END FROM subscription
WHERE organization_id = ? AND kind = '{SubscriptionKind.REGISTERED}' AND id > ? AND id <= ? AND deleted_at IS NULL
AND (is_active OR updated_at >= ?) ORDER BY id LIMIT ?
"""

_SENT = f"due_at IS NOT NULL AND submission <> '{Submission.WAITING}'"
_POLL_OWNERS = f"""
WITH RECURSIVE ahead(id) AS (
    SELECT min(organization_id) FROM task WHERE {_SENT} AND organization_id > :after
    UNION ALL
    SELECT (SELECT min(organization_id) FROM task WHERE {_SENT} AND organization_id > ahead.id)
    FROM ahead WHERE ahead.id IS NOT NULL
), behind(id) AS (
    SELECT min(organization_id) FROM task WHERE {_SENT} AND organization_id <= :after
    UNION ALL
    SELECT (
        SELECT min(organization_id) FROM task
        WHERE {_SENT} AND organization_id > behind.id AND organization_id <= :after
    ) FROM behind WHERE behind.id IS NOT NULL
)
SELECT id FROM (SELECT id FROM ahead UNION ALL SELECT id FROM behind) AS owner
WHERE EXISTS (SELECT 1 FROM task WHERE {_SENT} AND organization_id = owner.id AND due_at <= :now) LIMIT :limit
"""
"""The organizations that have due tasks which were sent, from the first one behind `:after`, `:limit` at most.

They are found by jumping from one to the next in `ix_task_due`: one with a million tasks is one step.
"""
_DUE_POLLS = f"""
SELECT {_STATE}, submitted_at FROM task
WHERE {_SENT} AND organization_id = ? AND due_at <= ? ORDER BY due_at, id LIMIT ?
"""
_UNSENT = f"due_at IS NOT NULL AND submission = '{Submission.WAITING}'"
_DUE_UNSENT = f"""
WITH RECURSIVE queue(bulk, organization_id) AS (
    SELECT kind.value, (SELECT min(organization_id) FROM task WHERE {_UNSENT} AND bulk = kind.value)
    FROM json_each('[0, 1]') AS kind
    UNION ALL
    SELECT queue.bulk, (
        SELECT min(organization_id) FROM task
        WHERE {_UNSENT} AND bulk = queue.bulk AND organization_id > queue.organization_id
    )
    FROM queue WHERE queue.organization_id IS NOT NULL
), due(id, turn) AS (
    SELECT waiting.id, row_number() OVER (
        PARTITION BY queue.organization_id, queue.bulk ORDER BY waiting.due_at, waiting.id
    )
    FROM queue JOIN task AS waiting ON waiting.id IN (
        SELECT id FROM task WHERE {_UNSENT} AND bulk = queue.bulk AND organization_id = queue.organization_id
        AND due_at <= ?1 ORDER BY due_at, id LIMIT ?2
    )
)
SELECT {_STATE}, submitted_at, bulk FROM task JOIN due USING (id)
ORDER BY turn, (organization_id, bulk) <= (?3, ?4), organization_id, bulk LIMIT ?2
"""
"""Due tasks that wait to be sent, in the order in which their queues take turns.

`queue` lists the queues, by jumping from one to the next in `ix_task_unsent`, once for each value of `bulk`: a long
queue is one step, and costs the others nothing. `due` reads the first `?2` due rows of each queue (a claim takes at
most `?2` in all) and numbers them; `turn` 1 is the oldest of its queue. Sorting by `turn` first takes one of each queue
before a second of any. `(organization_id, bulk) <= (?3, ?4)` puts the queues up to the one that was served last behind
the others, so that the next claim continues where the last one stopped.
"""

_CONTENT = (
    f"RETURNING id, stored_bytes <= {SMALL_BYTES}, updated_at, "
    f"CASE WHEN stored_bytes <= {SMALL_BYTES} THEN input END, CASE WHEN stored_bytes <= {SMALL_BYTES} THEN config END"
)


@lru_cache(maxsize=1024)
def _event_types(text: str) -> frozenset[str]:
    return frozenset(orjson.loads(text))


class SQLiteTransaction:
    """A transaction on the writer's connection: `core` is SQLAlchemy's connection, `driver` the one beneath it."""

    def __init__(self, core: Any, driver: sqlite3.Connection) -> None:
        self.after_commit: list[Callable[[], None]] = []
        self.bookkeeping: list[Callable[[], None]] = []
        self.size = 0
        """The bytes of the tasks' documents that its commit writes."""
        self._core = core
        self._driver = driver

    def leaves(self, trace: Trace, *, is_lasting: bool = False) -> None:
        """Do nothing: the answer to a commit cannot get lost, because the database is in this process."""

    async def execute(self, statement: Executable, parameters: Sequence[Values] | None = None) -> Sequence[Row[Any]]:
        """Run a SQLAlchemy Core statement; return its rows, or an empty sequence."""
        result = self._core.execute(statement, parameters)
        return result.fetchall() if result.returns_rows else ()

    async def write_to_disk(self) -> None:
        """Write the first page, with a number that SQLite leaves to applications and that nothing reads."""
        (number,) = self._driver.execute("PRAGMA user_version").fetchone()
        self._driver.execute(f"PRAGMA user_version={(number + 1) % 2**31}")

    async def load_tasks(
        self, uids: Collection[str], provider_ids: Collection[tuple[str, str]] = ()
    ) -> dict[str, TaskState]:
        """Return the tasks by their public id; the writer's transaction holds the lock on all rows."""
        rows = self._driver.execute(
            f"SELECT {_STATE} FROM task WHERE uid IN (SELECT value FROM json_each(?))", (write_document(list(uids)),)
        )
        found = {state.uid: state for state in map(_state, rows)}
        known = {(state.provider, state.provider_task_id) for state in found.values()}
        for names in provider_ids:
            if names not in known:
                rows = self._driver.execute(
                    f"SELECT {_STATE} FROM task WHERE provider = ? AND provider_task_id = ?", names
                )
                found.update((state.uid, state) for state in map(_state, rows))
        return found

    async def update_tasks(self, changes: Sequence[TaskChange]) -> None:
        """Write changed columns, one prepared statement for each set of columns that changes."""
        groups: dict[tuple[str, ...], list[TaskChange]] = defaultdict(list)
        for change in changes:
            groups[tuple(sorted(change.values))].append(change)
        for names, group in groups.items():
            assignments = ", ".join(f"{name} = ?" for name in names)
            sized = _documents(names)
            rows = [encoded(tasks, names, change.values) for change in group]
            if sized:
                assignments += ", stored_bytes = stored_bytes + ?"
                for row in rows:
                    row.append(stored_size(row[index] for index in sized))
                    self.size += row[-1]
            written = self._driver.executemany(
                f"UPDATE task SET {assignments} WHERE id = ? AND status = ? AND attempt = ?",
                [
                    [*row, change.id, change.from_status, change.from_attempt]
                    for row, change in zip(rows, group, strict=True)
                ],
            ).rowcount
            if written != len(group):
                raise RuntimeError("a task is not in the state that its change was decided on")

    async def insert_tasks(self, rows: Sequence[Values]) -> list[int]:
        """Insert whole rows; return their row keys in order."""
        first = next_key(self._driver, tasks)
        names = tuple(rows[0])
        columns = ", ".join(("id", *names, "stored_bytes"))
        sized = _documents(names)
        new = [encoded(tasks, names, row) for row in rows]
        sizes = [stored_size(row[index] for index in sized) for row in new]
        self.size += sum(sizes)
        self._driver.executemany(
            f"INSERT INTO task ({columns}) VALUES ({placeholders(len(names) + 2)})",
            [[key, *row, size] for key, (row, size) in enumerate(zip(new, sizes, strict=True), first)],
        )
        return list(range(first, first + len(rows)))

    async def find_callbacks(self, wanted: Collection[CallbackKey]) -> dict[CallbackKey, int]:
        """Return the row keys of the callbacks that there are."""
        return await callbacks.find_callbacks(self, wanted)

    async def insert_callbacks(self, rows: Sequence[Values]) -> list[int]:
        """Insert callbacks; return their row keys in order."""
        return await callbacks.insert_callbacks(self, rows)

    async def lock_runs(self, uids: Collection[str]) -> list[dict[str, Any]]:
        """Lock runs in the order of their row keys; return them with their steps."""
        return run_statements.lock_runs(self._driver, uids)

    async def write_runs(self, changed: Sequence[Values], steps: Sequence[Values], now: datetime) -> None:
        """Write the changed columns of locked runs and of steps."""
        run_statements.write_runs(self._driver, changed, steps, now)

    async def insert_runs(self, new: Sequence[Values]) -> None:
        """Insert runs with their steps."""
        run_statements.insert_runs(self._driver, new)

    async def insert_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Insert events; return their sequence numbers in order."""
        # AUTOINCREMENT's own counter: a purged event's number is never used again, which `max(id)` could not promise.
        found = self._driver.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        first = (found[0] if found else 0) + 1
        self._driver.executemany(
            "INSERT INTO event (id, uid, organization_id, task_id, run_uid, type, snapshot, created_at, "
            "request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    key,
                    event.uid,
                    event.organization_id,
                    event.task_id,
                    event.run_uid,
                    event.type,
                    write_document(event.snapshot),
                    write_moment(event.created_at),
                    event.request_id,
                )
                for key, event in enumerate(events, first)
            ],
        )
        return list(range(first, first + len(events)))

    async def append_events(
        self, events: Sequence[NewEvent], organization_ids: Collection[int], callback_ids: Collection[int]
    ) -> tuple[list[int], list[Listener]]:
        """Insert events, and return the subscriptions that they may match."""
        return await self.insert_events(events), await self.listeners(organization_ids, callback_ids)

    async def insert_deliveries(self, deliveries: Sequence[NewDelivery]) -> list[int]:
        """Insert deliveries; return their row keys in order."""
        first = next_key(self._driver, delivery_table)
        self._driver.executemany(
            "INSERT INTO delivery (id, uid, organization_id, subscription_id, event_id, task_id, replay_id, status, "
            "attempt, leased, schedule_from, due_at, created_at) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, '{DeliveryStatus.PENDING}', ?, ?, 0, ?, ?)",
            [
                (
                    key,
                    row.uid,
                    row.organization_id,
                    row.subscription_id,
                    row.event_id,
                    row.task_id,
                    row.replay_id,
                    row.attempt,
                    row.attempt > 0,
                    write_moment(row.due_at),
                    write_moment(row.created_at),
                )
                for key, row in enumerate(deliveries, first)
            ],
        )
        return list(range(first, first + len(deliveries)))

    async def listeners(self, organization_ids: Collection[int], callback_ids: Collection[int]) -> list[Listener]:
        """Return the active subscriptions that events of these organizations, or with these callbacks, may match."""
        wanted = (write_document(list(organization_ids)), write_document(list(callback_ids)))
        rows = self._driver.execute(_LISTENERS, wanted)
        return [
            Listener(
                key,
                organization_id,
                SubscriptionKind(kind),
                _event_types(types),
                bool(ordered),
                None if filters is None else orjson.loads(filters),
                bool(is_behind),
            )
            for key, organization_id, kind, types, ordered, filters, is_behind in rows
        ]

    async def listeners_after(
        self, organization_id: int, after: int, until: int, since: datetime, limit: int
    ) -> list[Listener]:
        """Return an organization's next registered subscriptions that are active, or were after `since`."""
        rows = self._driver.execute(_LISTENERS_AFTER, (organization_id, after, until, write_moment(since), limit))
        return [
            Listener(
                key,
                organization_id,
                SubscriptionKind.REGISTERED,
                _event_types(types),
                bool(ordered),
                None if filters is None else orjson.loads(filters),
                inactive_since=_moment_or_none(inactive_since),
            )
            for key, types, ordered, filters, inactive_since in rows
        ]

    def _claim_polls(self, now: datetime, lease_until: datetime, limit: int, after: int) -> list[DueTask]:
        """Claim due tasks that were sent, or may have been, as many of each organization."""
        moment, claimed = write_moment(now), list[DueTask]()
        while (wanted := limit - len(claimed)) > 0:
            named = {"now": moment, "limit": wanted, "after": after}
            owners = [owner for (owner,) in self._driver.execute(_POLL_OWNERS, named)]
            few = wanted // max(1, len(owners))
            found = [self._driver.execute(_DUE_POLLS, (owner, moment, few)).fetchall() for owner in owners]
            rows = [row for of_owner in found for row in of_owner]
            self._lease_tasks(rows, lease_until)
            claimed += [DueTask(_state(row), _moment_or_none(row[-1])) for row in rows]
            if all(len(of_owner) < few for of_owner in found):
                break
            after = owners[-1]
        return claimed

    def _claim_unsent(self, now: datetime, lease_until: datetime, limit: int, after: SendQueue) -> list[DueTask]:
        """Claim due tasks that wait to be sent, one of each queue in turn."""
        rows = self._driver.execute(_DUE_UNSENT, (write_moment(now), limit, *after)).fetchall()
        # The documents come from here, because that query sorts more rows than it claims.
        leased = self._lease_tasks(rows, lease_until, returning=_CONTENT)
        contents = {row[0]: row[1:] for row in leased}
        states = map(_state, rows)
        return [
            DueTask(
                state, _moment_or_none(row[-2]), (state.organization_id, bool(row[-1])), _content(*contents[state.id])
            )
            for state, row in zip(states, rows, strict=True)
        ]

    async def claim_new_keys(self, keys: Sequence[Values]) -> bool:
        """Return False: it has other statements."""
        return False

    async def save_answers(self, answers: Sequence[Values]) -> bool:
        """Return False: it has other statements."""
        return False

    async def claim_tasks(self, claim: TaskClaim) -> ClaimedTasks:
        """Claim due tasks of both kinds."""
        now, until = claim.now, claim.lease_until
        polls = self._claim_polls(now, until, claim.polls, claim.polled_after) if claim.polls else []
        unsent = self._claim_unsent(now, until, claim.unsent, claim.sent_after) if claim.unsent else []
        return ClaimedTasks(polls + unsent, len(polls) == claim.polls, len(unsent) == claim.unsent)

    def _lease_tasks(
        self, rows: Sequence[Sequence[Any]], lease_until: datetime, *, returning: str = ""
    ) -> Sequence[Sequence[Any]]:
        leased = self._driver.execute(
            f"UPDATE task SET due_at = ?, leased = 1 WHERE id IN (SELECT value FROM json_each(?)) {returning}",
            (write_moment(lease_until), write_document([row[0] for row in rows])),
        )
        return leased.fetchall()

    async def mark_sending(self, intents: Sequence[NewIntent], now: datetime) -> dict[tuple[str, int], int]:
        """Mark the tasks as being sent that wait for it at these attempts."""
        return intent_statements.mark_sending(self._driver, intents, now)

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
        """Claim due deliveries, at most `limit` of each subscription and `of_organization` of each organization."""
        moment = write_moment(now)
        left_out = {"skip": write_document(list(skip)), "skip_organizations": write_document(list(skip_organizations))}
        endpoints = self._driver.execute(_DUE_ENDPOINTS, {"now": moment, **left_out}).fetchall()
        rows: list[Sequence[Any]] = []
        for _, group in groupby(endpoints, key=itemgetter(0)):
            siblings = list(group)
            few = max(1, min(limit, of_organization // len(siblings)))
            for _, _, endpoint, ordered in siblings[:of_organization]:
                wanted = {"now": moment, "limit": few, "endpoint": endpoint, "ordered": ordered}
                rows += self._driver.execute(_DUE_DELIVERIES, wanted)
        if not rows:
            return []
        self._driver.execute(
            "UPDATE delivery SET due_at = ?, leased = 1, attempt = attempt + 1 "
            "WHERE id IN (SELECT value FROM json_each(?))",
            (write_moment(lease_until), write_document([row[1] for row in rows])),
        )
        rows.sort(key=lambda row: (row[0], row[1]))
        return [LeasedDelivery(row[1], row[2], row[3], lease_until, row[4]) for row in rows]

    async def failing(self, subscription_ids: Collection[int]) -> set[int]:
        """Return those of these subscriptions whose `failing_since` is set."""
        rows = self._driver.execute(
            "SELECT id FROM subscription WHERE id IN (SELECT value FROM json_each(?)) AND failing_since IS NOT NULL",
            (write_document(list(subscription_ids)),),
        )
        return {row[0] for row in rows}

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Write outcomes of attempts; False for one whose lease was lost."""
        rows = self._driver.execute(
            "SELECT id, attempt FROM delivery WHERE id IN (SELECT value FROM json_each(?)) "
            f"AND status = '{DeliveryStatus.PENDING}'",
            (write_document([each.delivery_id for each in settlements]),),
        )
        pending = set(rows)
        held = []
        for each in settlements:
            held.append((each.delivery_id, each.attempt) in pending)
            pending.discard((each.delivery_id, each.attempt))
        self._driver.executemany(
            "UPDATE delivery SET status = ?, due_at = ?, leased = 0, settled_at = ? "
            f"WHERE id = ? AND attempt = ? AND status = '{DeliveryStatus.PENDING}'",
            [
                (each.status, write_moment(each.due_at), write_moment(each.settled_at), each.delivery_id, each.attempt)
                for each, is_held in zip(settlements, held, strict=True)
                if is_held
            ],
        )
        self._driver.executemany(
            "INSERT OR IGNORE INTO delivery_attempt (delivery_id, number, started_at, duration_ms, status_code, error, "
            "response) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.delivery_id,
                    each.attempt,
                    write_moment(each.started_at),
                    each.duration_ms,
                    each.status_code,
                    each.error,
                    each.response,
                )
                for each in settlements
            ],
        )
        return held


def _state(row: Sequence[Any]) -> TaskState:
    values = list(row[: len(STATE_COLUMNS)])
    for index, decode in _STATE_DECODERS:
        if values[index] is not None:
            values[index] = decode(values[index])
    return TaskState(*values)


def _content(is_small: int, updated_at: str, input: Any, config: Any) -> TaskContent | None:
    return TaskContent(read_moment(updated_at), input, config) if is_small else None


def _moment_or_none(value: str | None) -> datetime | None:
    return None if value is None else read_moment(value)


def _documents(names: Sequence[str]) -> list[int]:
    """Return the positions of the columns whose sizes `stored_bytes` counts."""
    return [index for index, name in enumerate(names) if name in DOCUMENTS]
