"""The hot statements on PostgreSQL.

One statement for any number of items: each column of the items is passed as one array, and `unnest` turns the arrays
into rows. So 500 items take one round trip, like one item, and the text of a statement does not depend on their number:
the connection prepares it once.

Row keys are matched to the inserted items by the public id, because PostgreSQL does not promise the order of RETURNING.

Existing rows are locked in the order of their row keys before they are changed, so that of two processes that need
the same rows one waits for the other, and they cannot deadlock. `FOR NO KEY UPDATE` is the weakest lock that excludes
another writer: it lets inserts of rows that refer to the locked one proceed.

Claims do not wait: they use SKIP LOCKED. A claim needs any due rows, not certain ones. If it waited for a row that
another process is claiming or changing, it would usually find afterwards that the row is no longer due, and all
processes would wait for the same oldest rows. With SKIP LOCKED each takes rows that no other transaction has locked, at
once; a row that it skipped is claimed by the holder of the lock, or by a later claim. So a claim may return fewer rows
than are due. The rows are selected and locked in a MATERIALIZED part of the statement, so that the LIMIT is applied
once, to exactly the rows that the UPDATE then changes.

Some arrays are written as `(SELECT $1)`. The planner cannot look into that, so a plan for these values is no cheaper
than one for any values, and the statement is not planned again each time it runs, which takes longer than running it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

import asyncpg
from sqlalchemy import Executable, Row, Table, select

from models import DeliveryStatus, SubscriptionKind
from receiver.domain.task_state import STATE_COLUMNS, TaskState
from receiver.storage import callbacks
from receiver.storage.callbacks import CallbackKey
from receiver.storage.postgresql import intent_statements, run_statements
from receiver.storage.postgresql.commit_evidence import CommitEvidence
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.statement_parts import (
    EVENT_COLUMNS,
    NAMED_TASKS,
    arrays,
    arrays_of,
    callback_arrays,
    callbacks_query,
    event_arrays,
    is_given,
    listener_of,
    listeners_query,
    names_of,
    settlement_arrays,
    settlements_query,
    state_of,
)
from receiver.storage.postgresql.task_claims import TaskClaiming
from receiver.storage.stored_bytes import DOCUMENTS
from receiver.storage.tables import deliveries as delivery_table
from receiver.storage.tables import events as event_table
from receiver.storage.tables import tasks as task_table
from receiver.storage.transaction import (
    ClaimedTasks,
    LeasedDelivery,
    Listener,
    NewDelivery,
    NewEvent,
    NewIntent,
    Settlement,
    TaskChange,
    TaskClaim,
    Trace,
    Values,
)

_STATE = ", ".join(STATE_COLUMNS)

_LOAD_TASKS = f"SELECT {_STATE} FROM task WHERE {NAMED_TASKS} ORDER BY id FOR NO KEY UPDATE"

_IS_DUE = f"""waiting.subscription_id = subscription.id AND waiting.due_at IS NOT NULL AND waiting.due_at <= $2
        AND NOT (subscription.ordered AND EXISTS (
            SELECT 1 FROM delivery AS earlier
            WHERE earlier.task_id = waiting.task_id AND earlier.subscription_id = waiting.subscription_id
            AND earlier.id < waiting.id AND earlier.status = '{DeliveryStatus.PENDING}'
        ))"""
_CLAIM_DELIVERIES = f"""
WITH RECURSIVE endpoint(id) AS (
    (SELECT subscription_id FROM delivery WHERE due_at IS NOT NULL ORDER BY subscription_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT subscription_id FROM delivery WHERE due_at IS NOT NULL AND subscription_id > endpoint.id
        ORDER BY subscription_id LIMIT 1
    ) FROM endpoint WHERE endpoint.id IS NOT NULL
), able AS MATERIALIZED (
    SELECT endpoint.id, subscription.ordered,
        count(*) OVER (PARTITION BY subscription.organization_id) AS siblings,
        row_number() OVER (PARTITION BY subscription.organization_id ORDER BY oldest.due_at, endpoint.id) AS turn
    FROM endpoint JOIN subscription ON subscription.id = endpoint.id CROSS JOIN LATERAL (
        SELECT waiting.due_at FROM delivery AS waiting WHERE {_IS_DUE} ORDER BY waiting.due_at, waiting.id LIMIT 1
    ) AS oldest
    WHERE endpoint.id <> ALL($1::bigint[]) AND subscription.organization_id <> ALL($6::bigint[])
), picked AS MATERIALIZED (
    SELECT due.id, due.due_at FROM able AS subscription CROSS JOIN LATERAL (
        SELECT waiting.id, waiting.due_at FROM delivery AS waiting WHERE {_IS_DUE}
        ORDER BY waiting.due_at, waiting.id LIMIT GREATEST(1, LEAST($3::bigint, $5::bigint / subscription.siblings))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due
    WHERE subscription.turn <= $5::bigint
)
UPDATE delivery SET due_at = $4, leased = true, attempt = attempt + 1
FROM picked WHERE delivery.id = picked.id AND delivery.id = ANY (ARRAY(SELECT id FROM picked))
RETURNING delivery.id, delivery.subscription_id, delivery.attempt, delivery.organization_id, picked.due_at AS was_due_at
"""
"""Claims due deliveries, at most `$3` of each subscription, and about `$5` of each organization.

`endpoint` lists the subscriptions that have deliveries to send, by jumping from one to the next in `ix_delivery_due`: a
subscription with a million of them is one step, and costs the others nothing. `able` counts those of each organization
that have one to claim now, in the order of the oldest. Then the first due rows of each are locked, from the same index,
skipping those that another process has locked: as many as the organization's `$5` give each of them, at least one. The
condition with the array says nothing new: it keeps the planner, which expects far more rows after such a LIMIT, from
reading the whole table for the UPDATE while many deliveries are due.
"""

_SETTLE = f"""
WITH given AS MATERIALIZED (
    {settlements_query(1)}
), held AS MATERIALIZED (
    SELECT delivery.id, delivery.attempt FROM delivery
    JOIN given ON given.id = delivery.id AND given.attempt = delivery.attempt
    WHERE delivery.status = '{DeliveryStatus.PENDING}' AND {is_given("delivery.id", 1)}
    ORDER BY delivery.id FOR NO KEY UPDATE OF delivery
), tried AS (
    INSERT INTO delivery_attempt (delivery_id, number, started_at, duration_ms, status_code, error, response)
    SELECT given.id, given.attempt, started_at, duration_ms, status_code, error, response
    FROM given JOIN delivery ON delivery.id = given.id AND {is_given("delivery.id", 1)}
    ON CONFLICT (delivery_id, number) DO NOTHING
), settled AS (
    UPDATE delivery SET status = given.status, due_at = given.due_at, leased = false, settled_at = given.settled_at
    FROM held JOIN given ON given.id = held.id AND given.attempt = held.attempt
    WHERE delivery.id = held.id AND {is_given("delivery.id", 1)} RETURNING delivery.id, delivery.attempt
)
SELECT id, attempt FROM settled
UNION ALL
SELECT id, NULL FROM subscription WHERE id = ANY((SELECT $11::bigint[])::bigint[]) AND failing_since IS NOT NULL
"""
"""Writes outcomes of attempts: `held` are those whose delivery is still pending at this attempt, and only their
deliveries change; the attempt itself is recorded (`tried`) in any case, once, as long as its delivery exists.

A row without an attempt is a subscription among those in `$11` that is failing: who settles asks for them next."""


_LISTENERS = listeners_query("$1", "$2")

_CALLBACKS = callbacks_query(1)

_LISTENERS_AFTER = f"""
SELECT id, event_types, ordered, filters, CASE WHEN is_active THEN NULL ELSE updated_at END FROM subscription
WHERE organization_id = $1 AND kind = '{SubscriptionKind.REGISTERED}' AND id > $2 AND id <= $3 AND deleted_at IS NULL
AND (is_active OR updated_at >= $4) ORDER BY id LIMIT $5
"""

_DELIVERY_COLUMNS = (
    "uid",
    "organization_id",
    "subscription_id",
    "event_id",
    "task_id",
    "replay_id",
    "status",
    "attempt",
    "leased",
    "schedule_from",
    "due_at",
    "created_at",
)


_APPEND_EVENTS = f"""
WITH new_event AS (
    INSERT INTO event ({", ".join(EVENT_COLUMNS)})
    SELECT * FROM unnest({arrays(event_table, EVENT_COLUMNS, 1)}) RETURNING id, uid
)
SELECT id, uid, NULL AS organization_id, NULL AS kind, NULL AS event_types, NULL AS ordered, NULL AS filters,
    NULL AS is_behind FROM new_event
UNION ALL
{listeners_query("$9", "$10")}
"""
"""Inserts events, and reads the subscriptions that they may match, whose rows have no public id."""


class PostgreSQLTransaction:
    """A transaction on the writer's connection: `core` is SQLAlchemy's connection, `driver` the one beneath it."""

    def __init__(self, core: CoreConnection, driver: asyncpg.Connection) -> None:
        self.after_commit: list[Callable[[], None]] = []
        self.bookkeeping: list[Callable[[], None]] = []
        self.evidence = CommitEvidence()
        self._core = core
        self._driver = driver
        self._seen: dict[int, bool] = {}
        """Of the subscriptions of deliveries that were settled, whether each is failing; until that may change."""

    async def execute(self, statement: Executable, parameters: Sequence[Values] | None = None) -> Sequence[Row[Any]]:
        """Run a SQLAlchemy Core statement; return its rows, or an empty sequence."""
        self._seen.clear()
        result = await self._core.execute(statement, parameters)
        return result.fetchall() if result.returns_rows else ()

    def leaves(self, trace: Trace, *, is_lasting: bool = False) -> None:
        """Note a query that finds a row if this transaction was committed."""
        self.evidence.add(trace, is_lasting=is_lasting)

    async def commit(self, seconds: float) -> Any:
        """Send what commits; return the server's answer."""
        return await self._driver.execute("COMMIT", timeout=seconds)

    def refuse(self) -> NoReturn:
        """Raise the error for an answer that says that nothing was stored, and is none by itself."""
        raise RuntimeError("a statement of the transaction failed and was ignored; nothing of it was stored")

    async def write_to_disk(self) -> None:
        """Write a message to the server's WAL that is not read again."""
        await self._driver.execute("SELECT pg_logical_emit_message(true, 'ringback', '')")

    async def load_tasks(
        self, uids: Collection[str], provider_ids: Collection[tuple[str, str]] = ()
    ) -> dict[str, TaskState]:
        """Lock tasks in the order of their row keys; return them by their public id."""
        rows = await self._driver.fetch(_LOAD_TASKS, list(uids), *names_of(provider_ids))
        return {row["uid"]: state_of(row) for row in rows}

    async def update_tasks(self, changes: Sequence[TaskChange]) -> None:
        """Write changed columns, one prepared statement for each set of columns that changes."""
        groups: dict[tuple[str, ...], list[TaskChange]] = defaultdict(list)
        for change in changes:
            groups[tuple(sorted(change.values))].append(change)
        for names, group in groups.items():
            written = await self._driver.fetch(
                _update_tasks(names),
                [change.id for change in group],
                [change.from_status for change in group],
                [change.from_attempt for change in group],
                *arrays_of(names, [change.values for change in group]),
            )
            if len(written) != len(group):
                raise RuntimeError("a task is not in the state that its change was decided on")

    async def insert_tasks(self, rows: Sequence[Values]) -> list[int]:
        """Insert whole rows; return their row keys in order."""
        names = tuple(rows[0])
        return await self._insert(task_table, (*names, "stored_bytes"), arrays_of(names, rows))

    async def find_callbacks(self, wanted: Collection[CallbackKey]) -> dict[CallbackKey, int]:
        """Return the row keys of the callbacks that there are."""
        rows = await self._driver.fetch(_CALLBACKS, *callback_arrays(wanted))
        return {(organization_id, fingerprint): key for key, organization_id, fingerprint in rows}

    async def insert_callbacks(self, rows: Sequence[Values]) -> list[int]:
        """Insert callbacks; return their row keys in order."""
        return await callbacks.insert_callbacks(self, rows)

    async def lock_runs(self, uids: Collection[str]) -> list[dict[str, Any]]:
        """Lock runs in the order of their row keys; return them with their steps."""
        return await run_statements.lock_runs(self._driver, uids)

    async def write_runs(self, changed: Sequence[Values], steps: Sequence[Values], now: datetime) -> None:
        """Write the changed columns of locked runs and of steps."""
        await run_statements.write_runs(self._driver, changed, steps, now)

    async def insert_runs(self, new: Sequence[Values]) -> None:
        """Insert runs with their steps."""
        await run_statements.insert_runs(self._driver, new)

    async def insert_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Insert events; return their sequence numbers in order."""
        return await self._insert(event_table, EVENT_COLUMNS, event_arrays(events))

    async def append_events(
        self, events: Sequence[NewEvent], organization_ids: Collection[int], callback_ids: Collection[int]
    ) -> tuple[list[int], list[Listener]]:
        """Insert events and read `listeners`, with one statement."""
        rows = await self._driver.fetch(
            _APPEND_EVENTS, *event_arrays(events), list(organization_ids), list(callback_ids)
        )
        keys = {row["uid"]: row["id"] for row in rows if row["uid"] is not None}
        self.evidence.inserted = (event_table.name, events[0].uid)
        listeners = [listener_of(row) for row in rows if row["uid"] is None]
        return [keys[event.uid] for event in events], listeners

    async def insert_deliveries(self, deliveries: Sequence[NewDelivery]) -> list[int]:
        """Insert deliveries; return their row keys in order."""
        count = len(deliveries)
        columns: list[list[Any]] = [
            [row.uid for row in deliveries],
            [row.organization_id for row in deliveries],
            [row.subscription_id for row in deliveries],
            [row.event_id for row in deliveries],
            [row.task_id for row in deliveries],
            [row.replay_id for row in deliveries],
            [DeliveryStatus.PENDING] * count,
            [row.attempt for row in deliveries],
            [row.attempt > 0 for row in deliveries],
            [0] * count,
            [row.due_at for row in deliveries],
            [row.created_at for row in deliveries],
        ]
        return await self._insert(delivery_table, _DELIVERY_COLUMNS, columns)

    async def listeners(self, organization_ids: Collection[int], callback_ids: Collection[int]) -> list[Listener]:
        """Return the active subscriptions that events of these organizations, or with these callbacks, may match."""
        rows = await self._driver.fetch(_LISTENERS, list(organization_ids), list(callback_ids))
        return [listener_of(row) for row in rows]

    async def listeners_after(
        self, organization_id: int, after: int, until: int, since: datetime, limit: int
    ) -> list[Listener]:
        """Return an organization's next registered subscriptions that are active, or were after `since`."""
        rows = await self._driver.fetch(_LISTENERS_AFTER, organization_id, after, until, since, limit)
        return [
            Listener(
                key,
                organization_id,
                SubscriptionKind.REGISTERED,
                frozenset(types),
                ordered,
                filters,
                inactive_since=inactive_since,
            )
            for key, types, ordered, filters, inactive_since in rows
        ]

    async def claim_new_keys(self, keys: Sequence[Values]) -> bool:
        """Return False: it has other statements."""
        return False

    async def save_answers(self, answers: Sequence[Values]) -> bool:
        """Return False: it has other statements."""
        return False

    async def claim_tasks(self, claim: TaskClaim) -> ClaimedTasks:
        """Claim due tasks of both kinds."""
        claiming = TaskClaiming(claim)
        claiming.take(await self._driver.fetch(*claiming.statement()))
        self._leaves_lease(task_table, [each.state.id for each in claiming.claimed.tasks], claim.lease_until)
        return claiming.claimed

    async def mark_sending(self, intents: Sequence[NewIntent], now: datetime) -> dict[tuple[str, int], int]:
        """Mark the tasks as being sent that wait for it at these attempts."""
        return await intent_statements.mark_sending(self._driver, intents, now)

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
        rows = await self._driver.fetch(
            _CLAIM_DELIVERIES, list(skip), now, limit, lease_until, of_organization, list(skip_organizations)
        )
        self._leaves_lease(delivery_table, [row["id"] for row in rows], lease_until)
        rows.sort(key=lambda row: (row["was_due_at"], row["id"]))
        return [
            LeasedDelivery(row["id"], row["subscription_id"], row["attempt"], lease_until, row["organization_id"])
            for row in rows
        ]

    async def failing(self, subscription_ids: Collection[int]) -> set[int]:
        """Return those of these subscriptions whose `failing_since` is set."""
        if self._seen.keys() >= set(subscription_ids):
            return {key for key in subscription_ids if self._seen[key]}
        rows = await self._driver.fetch(
            "SELECT id FROM subscription WHERE id = ANY((SELECT $1::bigint[])::bigint[]) AND failing_since IS NOT NULL",
            list(subscription_ids),
        )
        return {row["id"] for row in rows}

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Write outcomes of attempts; False for one whose lease was lost."""
        first = {(each.delivery_id, each.attempt): each for each in reversed(settlements)}
        given = list(first.values())
        rows = await self._driver.fetch(
            _SETTLE,
            *settlement_arrays(given),
            list(dict.fromkeys(each.subscription_id for each in given)),
        )
        held = {(key, attempt) for key, attempt in rows if attempt is not None}
        failing = {key for key, attempt in rows if attempt is None}
        self._seen = {each.subscription_id: each.subscription_id in failing for each in given}
        return [
            (each.delivery_id, each.attempt) in held and first[each.delivery_id, each.attempt] is each
            for each in settlements
        ]

    def _leaves_lease(self, table: Table, claimed: Sequence[int], until: datetime) -> None:
        # The end of a lease is a time to the microsecond: no other process claims the same row until the same one.
        if claimed:
            key = claimed[0]
            self.leaves(lambda: select(table.c.id).where(table.c.id == key, table.c.due_at == until, table.c.leased))

    async def _insert(self, table: Table, names: tuple[str, ...], columns: Sequence[Sequence[Any]]) -> list[int]:
        """Insert rows, given as one list for each column; return their row keys in the order of the rows."""
        rows = await self._driver.fetch(_insert_into(table, names), *columns)
        self.evidence.inserted = (table.name, rows[0]["uid"])
        keys = {row["uid"]: row["id"] for row in rows}
        return [keys[uid] for uid in columns[names.index("uid")]]


@cache
def _insert_into(table: Table, names: tuple[str, ...]) -> str:
    columns = ", ".join(names)
    return f"INSERT INTO {table.name} ({columns}) SELECT * FROM unnest({arrays(table, names, 1)}) RETURNING id, uid"


@cache
def _update_tasks(names: tuple[str, ...]) -> str:
    assignments = ", ".join(f"{name} = given.new_{name}" for name in names)
    if not DOCUMENTS.isdisjoint(names):
        names = (*names, "stored_bytes")
        assignments += ", stored_bytes = task.stored_bytes + given.new_stored_bytes"
    columns = ", ".join(("id", "from_status", "from_attempt", *(f"new_{name}" for name in names)))
    return (
        f"UPDATE task SET {assignments} FROM unnest((SELECT $1::bigint[]), $2::text[], $3::integer[], "
        f"{arrays(task_table, names, 4)}) AS given({columns}) "
        "WHERE task.id = given.id AND task.status = given.from_status AND task.attempt = given.from_attempt "
        f"AND {is_given('task.id', 1)} "
        "RETURNING task.id"
    )
