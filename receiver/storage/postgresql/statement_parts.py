"""What both ways to write share: parts of statements, and rows as arrays for the driver, one for each column."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import asyncpg
import orjson
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from models import SubscriptionKind
from receiver.domain.task_state import STATE_COLUMNS, TaskState
from receiver.storage.callbacks import CallbackKey
from receiver.storage.postgresql.values import encoder_of, write_document, write_text
from receiver.storage.stored_bytes import DOCUMENTS, stored_size
from receiver.storage.tables import deliveries, events, run_steps, runs, subscriptions, tasks
from receiver.storage.transaction import Listener, NewEvent, Settlement, Values

_TYPES: Mapping[Table, Mapping[str, str]] = {
    table: {column.name: column.type.compile(postgresql.dialect()) for column in table.columns}  # type: ignore[no-untyped-call]
    for table in (tasks, events, deliveries, subscriptions, runs, run_steps)
}
_ENCODERS: Mapping[Table, Mapping[str, Callable[[Any], Any] | None]] = {
    table: {column.name: encoder_of(column.type) for column in table.columns}
    for table in (tasks, subscriptions, runs, run_steps)
}
EVENT_COLUMNS = ("uid", "organization_id", "task_id", "run_uid", "type", "snapshot", "created_at", "request_id")
SETTLEMENT_COLUMNS = "id, attempt, status, due_at, settled_at, started_at, duration_ms, status_code, error, response"
KEY = "bigint"
"""The type of row keys that other parts of a statement ask for too: such an array is given to the driver as one."""
SETTLEMENT_TYPES = (KEY, "integer", "text", *("timestamptz",) * 3, "integer", "integer", "text", "text")
_DOCUMENT = "JSONB"
_ARRAY_TEXT = re.compile(r"\$(\d+)::text::")
_ESCAPE, _QUOTE = "\\", '"'

NAMED_TASKS = """id = ANY(ARRAY(
    SELECT id FROM task WHERE uid = ANY((SELECT $1::uuid[])::uuid[])
    UNION
    SELECT named.id FROM unnest((SELECT $2::text[]), (SELECT $3::text[])) AS name(provider, provider_task_id)
    CROSS JOIN LATERAL (
        SELECT id FROM task WHERE task.provider = name.provider AND task.provider_task_id = name.provider_task_id
        LIMIT 1
    ) AS named
))"""
"""The condition that a task is among those with these public ids, or these providers' ids (`names_of`).

Each provider's id is looked up by itself. Of a plain join PostgreSQL makes a plan while the table is small that reads
all tasks which have one, and keeps it until the table is analyzed, when it may have many thousands. For the same reason
it is told the row keys as an array (`is_given`).
"""


def names_of(provider_ids: Collection[tuple[str, str]]) -> tuple[list[str | None], list[str | None]]:
    """Return the parameters for pairs of a provider and its id of a task."""
    return [write_text(provider) for provider, _ in provider_ids], [write_text(name) for _, name in provider_ids]


def is_given(column: str, parameter: int, kind: str = "bigint", *, is_one: bool = False) -> str:
    """Return the condition that a column is in the array which is this parameter, for a join that says so already.

    With it PostgreSQL looks the rows up. Without it the plan may read a whole index in the order of the join, if it was
    made while the table was small; and it is kept. If there `is_one` value the parameter is that, and no array.
    """
    if is_one:
        return f"{column} = (SELECT ${parameter}::{kind})"
    return f"{column} = ANY((SELECT ${parameter}::{kind}[])::{kind}[])"


def given_rows(types: Sequence[str], first: int, *, is_one: bool, is_ordered: bool = False) -> str:
    """Return the rows of parameters of these types, the first of which has the number `first`.

    Each is the values of a column. If there `is_one` row it is its value, which the driver and the server are quicker
    with. Otherwise it is an array, written as text (`array_text`), but not one of type `KEY` or of documents. If the
    rows are `is_ordered`, the last column is the place of each.
    """
    numbered = list(enumerate(types, first))
    if is_one:
        return f"(VALUES ({', '.join(f'${number}::{kind}' for number, kind in numbered)}{', 1' if is_ordered else ''}))"
    columns = [
        f"${number}::{kind}[]" if kind in (KEY, _DOCUMENT) else f"${number}::text::{kind}[]"
        for number, kind in numbered
    ]
    # The planner cannot look into the first one: see `receiver.storage.postgresql.transaction`.
    columns[0] = f"(SELECT {columns[0]})"
    return f"unnest({', '.join(columns)}){' WITH ORDINALITY' if is_ordered else ''}"


@cache
def texts_in(statement: str) -> frozenset[int]:
    """Return the parameters of a statement that are arrays written as text, by their place."""
    return frozenset(int(number) - 1 for number in _ARRAY_TEXT.findall(statement))


def array_text(values: Sequence[Any]) -> str:
    """Return an array of numbers, times or texts as PostgreSQL reads it.

    The driver would look at each value by itself and encode it in a microsecond or so. JSON is written at once, and
    inside the brackets it is the same, unless a text has characters that JSON escapes in its own way. Nothing looks at
    the types of the values: they have to be those of the column.
    """
    written = orjson.dumps(values).decode()
    if "\\" in written:
        written = f" {','.join(map(_quoted, values))} "
    return f"{{{written[1:-1]}}}"


def _quoted(value: str | None) -> str:
    return "NULL" if value is None else f'"{value.replace(_ESCAPE, _ESCAPE * 2).replace(_QUOTE, _ESCAPE + _QUOTE)}"'


def types_of(table: Table, names: Sequence[str]) -> list[str]:
    """Return the types of these columns."""
    return [_TYPES[table][name] for name in names]


def arrays(table: Table, names: Sequence[str], first: int) -> str:
    """Return the parameters for arrays of these columns, the first of which has the number `first`."""
    return ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types_of(table, names), first))


def settlements_query(first: int) -> str:
    """Return the query for the rows of `settlement_arrays`, the first of which has the number `first`."""
    key, *rest = (f"${number}::{kind}[]" for number, kind in enumerate(SETTLEMENT_TYPES, first))
    return f"SELECT * FROM unnest((SELECT {key}), {', '.join(rest)}) AS given({SETTLEMENT_COLUMNS})"


def listeners_query(organization_ids: str, callback_ids: str) -> str:
    """Return the query for the active subscriptions of these organizations, and of these callbacks."""
    columns = "id, NULL::uuid AS uid, organization_id, kind, event_types, ordered, filters"
    return f"""
SELECT {columns}, ordered AND EXISTS (
    SELECT 1 FROM fan_out WHERE fan_out.organization_id = subscription.organization_id
) AS is_behind FROM subscription
WHERE is_active AND deleted_at IS NULL AND kind = '{SubscriptionKind.REGISTERED}'
AND organization_id = ANY((SELECT {organization_ids}::bigint[])::bigint[])
UNION ALL
SELECT {columns}, false FROM subscription
WHERE is_active AND deleted_at IS NULL AND id = ANY((SELECT {callback_ids}::bigint[])::bigint[])
"""


def callbacks_query(first: int) -> str:
    """Return the query for the callbacks of `callback_arrays`, the first of which has the number `first`.

    It asks for the next fingerprint in order, so that no plan looks through all subscriptions of an organization: one
    that is made while the table is small may do so for a fingerprint that is to be equal.
    """
    return f"""SELECT next.id, given.organization_id, given.fingerprint
    FROM unnest((SELECT ${first}::bigint[]), ${first + 1}::text[]) AS given(organization_id, fingerprint)
    CROSS JOIN LATERAL (
        SELECT id, fingerprint FROM subscription
        WHERE organization_id = given.organization_id AND subscription.fingerprint >= given.fingerprint
        ORDER BY subscription.fingerprint LIMIT 1
    ) AS next
    WHERE next.fingerprint = given.fingerprint"""


def callback_arrays(wanted: Collection[CallbackKey]) -> tuple[list[int], list[str]]:
    """Return the parameters for callbacks that are looked for."""
    return [organization_id for organization_id, _ in wanted], [fingerprint for _, fingerprint in wanted]


def event_arrays(new: Sequence[NewEvent]) -> list[list[Any]]:
    """Return one list for each of `EVENT_COLUMNS`."""
    return [
        [event.uid for event in new],
        [event.organization_id for event in new],
        [event.task_id for event in new],
        [event.run_uid for event in new],
        [event.type for event in new],
        [write_document(event.snapshot) for event in new],
        [event.created_at for event in new],
        [event.request_id for event in new],
    ]


def settlement_arrays(given: Sequence[Settlement]) -> list[list[Any]]:
    """Return one list for each of `SETTLEMENT_COLUMNS`."""
    return [
        [each.delivery_id for each in given],
        [each.attempt for each in given],
        [each.status for each in given],
        [each.due_at for each in given],
        [each.settled_at for each in given],
        [each.started_at for each in given],
        [each.duration_ms for each in given],
        [each.status_code for each in given],
        [write_text(each.error) for each in given],
        [write_text(each.response) for each in given],
    ]


def listener_of(row: Iterable[Any]) -> Listener:
    """Return the subscription of a row of `listeners_query`."""
    key, _, organization_id, kind, types, ordered, filters, is_behind = row
    return Listener(key, organization_id, SubscriptionKind(kind), frozenset(types), ordered, filters, is_behind)


def columns_of(table: Table, names: Sequence[str], rows: Sequence[Values]) -> list[list[Any]]:
    """Return one list for each column of these rows, encoded."""
    return [_column_of(_ENCODERS[table][name], name, rows) for name in names]


def arrays_of(names: Sequence[str], rows: Sequence[Values]) -> list[list[Any]]:
    """Return one list for each column of tasks; where documents are among them, one more with their `stored_bytes`."""
    columns = columns_of(tasks, names, rows)
    sized = [column for name, column in zip(names, columns, strict=True) if name in DOCUMENTS]
    return [*columns, [stored_size(row) for row in zip(*sized, strict=True)]] if sized else columns


def _column_of(encode: Callable[[Any], Any] | None, name: str, rows: Sequence[Values]) -> list[Any]:
    if encode is None:
        return [row[name] for row in rows]
    return [None if (value := row[name]) is None else encode(value) for row in rows]


def state_of(row: asyncpg.Record) -> TaskState:
    """Return the state of a task whose row begins with `STATE_COLUMNS`."""
    return TaskState(*row[: len(STATE_COLUMNS)])
