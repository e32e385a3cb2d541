"""The statement that looks whether what was read still holds, writes all of a batch, and commits.

It is sent by itself, so it is a transaction of its own: when its answer has come, what it wrote is on disk.

- `held_task` locks the tasks that were read, in the order of their row keys, without waiting. A row that another
  transaction has locked is left out, and so is one that is not the version that was read: `xmin` is the number of the
  transaction that wrote a version. The newest version is looked at, also if it was committed after this statement
  began: before PostgreSQL returns a row that was changed meanwhile, it locks its newest version and tests the
  condition again with that (READ COMMITTED).
- `held_delivery` does the same for the deliveries whose outcomes are written: each is still pending, at its attempt.
- `waiting` does it for the tasks whose intent to be sent is written: each waits for it, at its attempt.
- `held_run` does it for the runs that were read, whose steps change with them alone.
- `verdict` says whether all are held, and no endpoint is failing, which a success would end. If not, nothing is written
  at all: every part that writes asks it. Where nothing was read that may change, it is true: new tasks depend on no row
  but those that they refer to, which the server looks at itself.
- `new_delivery` finds the row keys of events by their public ids; a delivery in `Writes` refers to an event by its
  place (`place_of`), and so does an event to a task that is inserted with it, and such a task to a new callback.

A part that has nothing to write is left out. Its text depends on which parts there are and on the columns that change,
not on the number of rows, so the connection prepares a few such statements under any one load; the driver keeps the
last 100. Where webhooks, outcomes and creates come one at a time, a batch has no more than one row for each part: that
has a text of its own, with values instead of arrays, which take the driver and the server twice as long. Most arrays
are texts for the driver (`array_text`), and arrays for the server.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from msgspec import Struct, field

from models import DeliveryStatus
from receiver.storage.postgresql.intent_statements import intent_arrays, mark_waiting, waiting_query
from receiver.storage.postgresql.run_statements import (
    NEW_RUN_PARAMETERS,
    RUN_PARAMETERS,
    insert_run,
    insert_step,
    write_run,
    write_step,
)
from receiver.storage.postgresql.statement_parts import (
    EVENT_COLUMNS,
    KEY,
    SETTLEMENT_COLUMNS,
    SETTLEMENT_TYPES,
    array_text,
    arrays,
    arrays_of,
    columns_of,
    event_arrays,
    given_rows,
    is_given,
    settlement_arrays,
    texts_in,
    types_of,
)
from receiver.storage.stored_bytes import DOCUMENTS
from receiver.storage.tables import deliveries, events, subscriptions, tasks
from receiver.storage.transaction import NewDelivery, NewEvent, NewIntent, Settlement, TaskChange, Values

MARK = "/* one statement */"
"""What the statement begins with: the server's views show it by that."""


class Writes(Struct):
    """What one statement writes, and `versions`: of each task that was read, by its row key, the version."""

    versions: dict[int, int] = field(default_factory=dict)
    changes: list[TaskChange] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    deliveries: list[NewDelivery] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    intents: list[NewIntent] = field(default_factory=list)
    sent_at: datetime | None = None
    """When the tasks of `intents` are marked as being sent."""
    run_versions: dict[int, int] = field(default_factory=dict)
    """Of each run that was read, by its row key, the version."""
    runs: list[Any] = field(default_factory=list)
    """The parameters for runs and steps that are written (`run_arrays`)."""
    new_runs: list[Any] = field(default_factory=list)
    """The parameters for runs that are inserted with their steps (`new_run_arrays`)."""
    callbacks: list[Values] = field(default_factory=list)
    """The rows of new subscriptions of clients' own callbacks."""
    tasks: list[Values] = field(default_factory=list)
    """The rows of new tasks."""

    def __bool__(self) -> bool:
        """Return whether anything is to be written."""
        inserted = (self.new_runs, self.callbacks, self.tasks, self.events, self.deliveries)
        return any((self.changes, self.settlements, self.intents, self.runs, *inserted))

    def statement(self, mixed: set[str]) -> tuple[str, list[Any]]:
        """Return the statement and its parameters.

        `mixed` has the columns of all batches until now in which tasks had changes of different columns; those of this
        one are added. Such a batch names them all, so that there is one text for them, and not one for each mixture.
        """
        columns = {name for change in self.changes for name in change.values}
        is_mixed = any(len(change.values) < len(columns) for change in self.changes)
        if is_mixed:
            mixed |= columns
        names = tuple(sorted(mixed if is_mixed else columns))
        is_one = self._is_one()
        text = _text(
            _Shape(
                is_one=is_one,
                has_tasks=bool(self.versions),
                names=names,
                is_mixed=is_mixed,
                has_events=bool(self.events),
                has_deliveries=bool(self.deliveries),
                has_settlements=bool(self.settlements),
                has_intents=bool(self.intents),
                has_read_runs=bool(self.run_versions),
                has_runs=bool(self.runs),
                has_new_runs=bool(self.new_runs),
                new_callback=tuple(self.callbacks[0]) if self.callbacks else (),
                new_task=tuple(self.tasks[0]) if self.tasks else (),
            )
        )
        arguments = [*self._held(), *self._changed(names, is_mixed), *self._inserted()]
        if is_one:
            return text, [column[0] for column in arguments]
        for place in texts_in(text):
            arguments[place] = array_text(arguments[place])
        return text, arguments

    def _is_one(self) -> bool:
        """Return whether no part has more than one row; only for the parts of webhooks, outcomes and creates."""
        if self.intents or self.run_versions or self.runs or self.new_runs or self.callbacks:
            return False
        parts = (self.versions, self.changes, self.tasks, self.events, self.deliveries, self.settlements)
        return all(len(part) <= 1 for part in parts)

    def _held(self) -> list[Any]:
        arguments: list[Any] = []
        if self.versions:
            arguments += [list(self.versions), list(self.versions.values())]
        if self.settlements:
            endpoints = {each.subscription_id for each in self.settlements}
            arguments += [*settlement_arrays(self.settlements), list(endpoints)]
        if self.intents and self.sent_at is not None:
            arguments += intent_arrays(self.intents, self.sent_at)
        if self.run_versions:
            arguments += [list(self.run_versions), list(self.run_versions.values())]
        return arguments

    def _changed(self, names: Sequence[str], is_mixed: bool) -> list[Any]:
        if not self.changes:
            return []
        arguments: list[Any] = [[change.id for change in self.changes]]
        rows = [change.values for change in self.changes]
        if is_mixed:
            bits = {name: 1 << place for place, name in enumerate(names)}
            arguments.append([sum(bits[name] for name in row) for row in rows])
            rows = [{name: row.get(name) for name in names} for row in rows]
        return [*arguments, *arrays_of(names, rows)]

    def _inserted(self) -> list[Any]:
        arguments: list[Any] = [*self.runs, *self.new_runs]
        if self.callbacks:
            arguments += columns_of(subscriptions, tuple(self.callbacks[0]), self.callbacks)
        if self.tasks:
            arguments += arrays_of(tuple(self.tasks[0]), self.tasks)
            if self.callbacks:
                arguments.append([self._new_callback_of(task) for task in self.tasks])
        if self.events:
            arguments += event_arrays(self.events)
            if self.tasks:
                arguments.append([event.task_uid if is_new(event.task_id) else None for event in self.events])
        if self.deliveries:
            rows = self.deliveries
            arguments += [
                [row.uid for row in rows],
                [row.organization_id for row in rows],
                [row.subscription_id for row in rows],
                [row.attempt for row in rows],
                [row.due_at for row in rows],
                [row.created_at for row in rows],
                [self.events[place_of(row.event_id)].uid for row in rows],
            ]
        return arguments

    def _new_callback_of(self, task: Values) -> str | None:
        key = task["callback_id"]
        return str(self.callbacks[place_of(key)]["uid"]) if is_new(key) else None


def key_at(place: int) -> int:
    """Return what stands for the row key of what is inserted at this place, which has none yet."""
    return -1 - place


def place_of(key: int) -> int:
    """Return the place that such a key stands for; it is negative for a real key."""
    return -1 - key


def is_new(key: int | None) -> bool:
    """Return whether a key stands for the place of what has none yet."""
    return key is not None and key < 0


class _Shape(Struct, frozen=True):
    """What the statement's text depends on. `is_mixed` if some tasks have changes of fewer columns than others."""

    is_one: bool
    """Whether no part has more than one row: the parameters are values and no arrays."""
    has_tasks: bool
    names: tuple[str, ...]
    is_mixed: bool
    has_events: bool
    has_deliveries: bool
    has_settlements: bool
    has_intents: bool
    has_read_runs: bool
    has_runs: bool
    has_new_runs: bool
    new_callback: tuple[str, ...]
    """The columns of callbacks that are inserted."""
    new_task: tuple[str, ...]
    """The columns of tasks that are inserted."""


_GIVEN_DELIVERY = ("uid", "organization_id", "subscription_id", "attempt", "due_at", "created_at")
_HOLDS = "(SELECT holds FROM verdict)"


@cache
def _text(shape: _Shape) -> str:
    parts: list[str] = []
    conditions: list[str] = []
    first = 1
    if shape.has_tasks:
        parts.append(_held_tasks(shape))
        conditions.append(f"(SELECT count(*) FROM held_task) = {_number_of(1, shape)}")
        first = 3
    settled_from = first
    if shape.has_settlements:
        parts.append(_held_deliveries(shape, first))
        conditions.append(f"(SELECT count(*) FROM held_delivery) = {_number_of(first, shape)}")
        endpoints = is_given("id", first + 10, is_one=shape.is_one)
        conditions.append(f"NOT EXISTS (SELECT FROM subscription WHERE {endpoints} AND failing_since IS NOT NULL)")
        first += 11
    intents_from = first
    if shape.has_intents:
        parts.append(f"waiting AS MATERIALIZED ({waiting_query(first)} SKIP LOCKED\n)")
        conditions.append(f"(SELECT count(*) FROM waiting) = cardinality(${first}::uuid[])")
        first += 5
    if shape.has_read_runs:
        parts.append(f"""held_run AS MATERIALIZED (
    SELECT run.id FROM unnest((SELECT ${first}::bigint[]), ${first + 1}::xid[]) AS given(id, version)
    JOIN run ON run.id = given.id AND run.xmin = given.version AND {is_given("run.id", first)}
    ORDER BY run.id FOR NO KEY UPDATE OF run SKIP LOCKED
)""")
        conditions.append(f"(SELECT count(*) FROM held_run) = cardinality(${first}::bigint[])")
        first += 2
    parts.append(f"verdict AS MATERIALIZED (SELECT {' AND '.join(conditions) or 'true'} AS holds)")
    if shape.names:
        text, first = _changed(shape, first)
        parts.append(text)
    if shape.has_runs:
        parts.append(f"written_run AS ({write_run(first)} AND {_HOLDS}\n)")
        parts.append(f"written_step AS ({write_step(first)} AND {_HOLDS}\n)")
        first += RUN_PARAMETERS
    if shape.has_new_runs:
        parts.append(f"new_run AS ({insert_run(first)} WHERE {_HOLDS} RETURNING id, uid\n)")
        parts.append(f"new_step AS ({insert_step(first)}\n)")
        first += NEW_RUN_PARAMETERS
    if shape.new_callback:
        names = shape.new_callback
        parts.append(f"""new_callback AS (
    INSERT INTO subscription ({", ".join(names)})
    SELECT * FROM unnest({arrays(subscriptions, names, first)}) WHERE {_HOLDS} RETURNING id, uid
)""")
        first += len(names)
    if shape.new_task:
        parts.append(_new_tasks(shape, first))
        first += len(shape.new_task) + 1 + bool(shape.new_callback)
    if shape.has_events:
        parts.append(_new_events(shape, first))
        first += len(EVENT_COLUMNS) + bool(shape.new_task)
    if shape.has_deliveries:
        parts.append(_new_deliveries(shape, first))
    if shape.has_settlements:
        parts.append(_settled(shape, settled_from))
    if shape.has_intents:
        parts.append(f"marked AS ({mark_waiting(intents_from)} AND {_HOLDS}\n)")
    answers = ["SELECT NULL::bigint AS id, NULL::uuid AS uid, holds FROM verdict"]
    if shape.new_callback:
        answers.append("SELECT id, uid, NULL FROM new_callback")
    if shape.new_task:
        answers.append("SELECT id, uid, NULL FROM new_task")
    if shape.has_events:
        answers.append("SELECT id, uid, NULL FROM new_event")
    if shape.has_deliveries:
        answers.append("SELECT id, uid, NULL FROM new_delivery")
    return f"{MARK} WITH {', '.join(parts)}\n{' UNION ALL '.join(answers)}"


def _number_of(parameter: int, shape: _Shape) -> str:
    """Return how many row keys the parameter has."""
    return "1" if shape.is_one else f"cardinality(${parameter}::bigint[])"


def _held_tasks(shape: _Shape) -> str:
    given = given_rows((KEY, "xid"), 1, is_one=shape.is_one)
    return f"""held_task AS MATERIALIZED (
    SELECT task.id FROM {given} AS given(id, version)
    JOIN task ON task.id = given.id AND task.xmin = given.version AND {is_given("task.id", 1, is_one=shape.is_one)}
    ORDER BY task.id FOR NO KEY UPDATE OF task SKIP LOCKED
)"""


def _held_deliveries(shape: _Shape, first: int) -> str:
    given = f"{given_rows(SETTLEMENT_TYPES, first, is_one=shape.is_one)} AS given({SETTLEMENT_COLUMNS})"
    return f"""given_outcome AS MATERIALIZED (SELECT * FROM {given}), held_delivery AS MATERIALIZED (
    SELECT delivery.id FROM delivery
    JOIN given_outcome AS given ON given.id = delivery.id AND given.attempt = delivery.attempt
    WHERE delivery.status = '{DeliveryStatus.PENDING}' AND {is_given("delivery.id", first, is_one=shape.is_one)}
    ORDER BY delivery.id FOR NO KEY UPDATE OF delivery SKIP LOCKED
)"""


def _changed(shape: _Shape, first: int) -> tuple[str, int]:
    """Return the part that writes changed columns, and the number of the next parameter."""
    names = shape.names
    if shape.is_mixed:
        new = [
            f"{name} = CASE WHEN given.written & {1 << place} <> 0 THEN given.new_{name} ELSE task.{name} END"
            for place, name in enumerate(names)
        ]
    else:
        new = [f"{name} = given.new_{name}" for name in names]
    if not DOCUMENTS.isdisjoint(names):
        names = (*names, "stored_bytes")
        new.append("stored_bytes = task.stored_bytes + given.new_stored_bytes")
    is_changed = is_given("task.id", first, is_one=shape.is_one)
    columns = ["id", *(["written"] if shape.is_mixed else []), *(f"new_{name}" for name in names)]
    types = [KEY, *(["bigint"] if shape.is_mixed else []), *types_of(tasks, names)]
    given = given_rows(types, first, is_one=shape.is_one)
    text = f"""changed AS (
    UPDATE task SET {", ".join(new)} FROM {given} AS given({", ".join(columns)})
    WHERE task.id = given.id AND {is_changed} AND {_HOLDS}
)"""
    return text, first + len(types)


def _new_tasks(shape: _Shape, first: int) -> str:
    columns = (*shape.new_task, "stored_bytes")
    names = ", ".join(columns)
    if not shape.new_callback:
        given = given_rows(types_of(tasks, columns), first, is_one=shape.is_one)
        return f"""new_task AS (
    INSERT INTO task ({names}) SELECT * FROM {given} AS given({names}) WHERE {_HOLDS} RETURNING id, uid
)"""
    values = [
        "COALESCE(new_callback.id, given.callback_id)" if name == "callback_id" else f"given.{name}" for name in columns
    ]
    given = given_rows([*types_of(tasks, columns), "uuid"], first, is_one=False, is_ordered=True)
    return f"""new_task AS (
    INSERT INTO task ({names}) SELECT {", ".join(values)}
    FROM {given} AS given({names}, new_callback_uid, place)
    LEFT JOIN new_callback ON new_callback.uid = given.new_callback_uid
    WHERE {_HOLDS} ORDER BY given.place RETURNING id, uid
)"""


def _new_events(shape: _Shape, first: int) -> str:
    names, types = ", ".join(EVENT_COLUMNS), types_of(events, EVENT_COLUMNS)
    if not shape.new_task:
        return f"""new_event AS (
    INSERT INTO event ({names})
    SELECT * FROM {given_rows(types, first, is_one=shape.is_one)} AS given({names}) WHERE {_HOLDS}
    RETURNING id, uid, task_id
)"""
    values = [
        "COALESCE(new_task.id, given.task_id)" if name == "task_id" else f"given.{name}" for name in EVENT_COLUMNS
    ]
    given = given_rows([*types, "uuid"], first, is_one=shape.is_one, is_ordered=True)
    return f"""new_event AS (
    INSERT INTO event ({names}) SELECT {", ".join(values)}
    FROM {given} AS given({names}, new_task_uid, place)
    LEFT JOIN new_task ON new_task.uid = given.new_task_uid
    WHERE {_HOLDS} ORDER BY given.place RETURNING id, uid, task_id
)"""


def _new_deliveries(shape: _Shape, first: int) -> str:
    names = ", ".join(_GIVEN_DELIVERY)
    types = [*types_of(deliveries, _GIVEN_DELIVERY), "uuid"]
    given = given_rows(types, first, is_one=shape.is_one, is_ordered=True)
    return f"""new_delivery AS (
    INSERT INTO delivery ({names}, event_id, task_id, status, leased, schedule_from)
    SELECT {", ".join(f"given.{name}" for name in _GIVEN_DELIVERY)}, new_event.id, new_event.task_id,
        '{DeliveryStatus.PENDING}', given.attempt > 0, 0
    FROM {given} AS given({names}, event_uid, place)
    JOIN new_event ON new_event.uid = given.event_uid ORDER BY given.place RETURNING id, uid
)"""


def _settled(shape: _Shape, first: int) -> str:
    columns = "started_at, duration_ms, status_code, error, response"
    return f"""tried AS (
    INSERT INTO delivery_attempt (delivery_id, number, {columns})
    SELECT id, attempt, {columns} FROM given_outcome WHERE {_HOLDS} ON CONFLICT (delivery_id, number) DO NOTHING
), settled AS (
    UPDATE delivery SET status = given.status, due_at = given.due_at, leased = false, settled_at = given.settled_at
    FROM given_outcome AS given
    WHERE delivery.id = given.id AND {is_given("delivery.id", first, is_one=shape.is_one)} AND {_HOLDS}
)"""
