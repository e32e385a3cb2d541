"""Queries for the gauges that operators watch: what is due, how old the oldest of it is, and what has not ended.

They are asked every few seconds, so no query reads more than `MOST_COUNTED` rows of one owner, however many there are,
and the owners (organizations, subscriptions) are found by jumping from one to the next in an index, as claims do: one
with a million rows is one step. The texts are the same for both databases. The conditions of partial indexes stand in
them as they are, for an index is not used for a condition that is a parameter.
"""

from typing import Any

from sqlalchemy import BigInteger, TextualSelect, bindparam, text

from models import DeliveryStatus, RunStatus, Submission, SubscriptionKind, TaskStatus
from models.columns import Moment

MOST_COUNTED = 10_000
OPEN_TASKS = (TaskStatus.QUEUED, TaskStatus.STAGED, TaskStatus.PENDING, TaskStatus.PROCESSING)
OPEN_RUNS = (RunStatus.PENDING, RunStatus.IN_PROGRESS)

_TO_POLL = f"due_at IS NOT NULL AND submission <> '{Submission.WAITING}'"
_TO_SEND = f"due_at IS NOT NULL AND submission = '{Submission.WAITING}' AND bulk = "
DUE_TASKS = {"poll": (_TO_POLL,), "send": (f"{_TO_SEND} false", f"{_TO_SEND} true")}
"""By what is to be done with a task, the conditions of those tasks: one for each part of an index."""
_IS_FREE = f"""NOT (
    owner.ordered AND EXISTS (
        SELECT 1 FROM delivery AS earlier
        WHERE earlier.task_id = delivery.task_id AND earlier.subscription_id = delivery.subscription_id
        AND earlier.id < delivery.id AND earlier.status = '{DeliveryStatus.PENDING}'
    )
)"""
"""Whether a delivery waits for no earlier one of its task."""


def due_tasks(condition: str) -> TextualSelect:
    """Return the query for (due, overdue, oldest) of the tasks of one condition; see `_due` for its parameters."""
    return _due("task", "organization_id", condition, "true", _owners("owner", "task", "organization_id", condition))


def due_deliveries() -> TextualSelect:
    """Return the query for (due, overdue, oldest) of the deliveries; see `_due` for its parameters.

    One that waits for an earlier one of its task is left out.
    """
    condition = "due_at IS NOT NULL"
    endpoints = _owners("endpoint", "delivery", "subscription_id", condition)
    owners = f"""{endpoints}, owner(id, ordered) AS (
        SELECT endpoint.id, ordered FROM endpoint JOIN subscription ON subscription.id = endpoint.id
    )"""
    return _due("delivery", "subscription_id", condition, _IS_FREE, owners)


def open_tasks() -> TextualSelect:
    """Return the query for the numbers of tasks in each state that is no end, by the state's name."""
    parts = [condition for conditions in DUE_TASKS.values() for condition in conditions]
    jumps = [_owners(f"part{number}", "task", "organization_id", each) for number, each in enumerate(parts)]
    union = " UNION ".join(f"SELECT id FROM part{number} WHERE id IS NOT NULL" for number in range(len(parts)))
    counts = [f"{_count('task', 'organization_id', _is(each))} AS {each}" for each in OPEN_TASKS]
    return _counts(f"WITH RECURSIVE {', '.join(jumps)}, owner(id) AS ({union}) SELECT {', '.join(counts)}", *OPEN_TASKS)


def open_runs() -> TextualSelect:
    """Return the query for the number of runs that have not ended, as `open`."""
    total = " + ".join(_count("run", "organization_id", _is(each)) for each in OPEN_RUNS)
    return _counts(
        f"WITH RECURSIVE {_owners('owner', 'run', 'organization_id', 'true')} SELECT {total} AS open", "open"
    )


def faulty_webhooks() -> TextualSelect:
    """Return the query for the numbers of webhooks that Ringback has `disabled`, and that are `failing` but active."""
    is_there = f"kind = '{SubscriptionKind.REGISTERED}' AND deleted_at IS NULL"
    disabled = f"{is_there} AND NOT is_active AND disabled_reason IS NOT NULL"
    failing = f"{is_there} AND is_active AND failing_since IS NOT NULL"
    owners = _owners("owner", "subscription", "organization_id", "true")
    return _counts(
        f"WITH RECURSIVE {owners} SELECT {_count('subscription', 'organization_id', disabled)} AS disabled, "
        f"{_count('subscription', 'organization_id', failing)} AS failing",
        "disabled",
        "failing",
    )


def newest_dead_deliveries() -> TextualSelect:
    """Return the query for how many of the `MOST_COUNTED` newest deliveries are given up, as `dead`."""
    newest = f"SELECT status FROM delivery ORDER BY id DESC LIMIT {MOST_COUNTED}"
    return _counts(
        f"SELECT count(*) AS dead FROM ({newest}) AS newest WHERE {_is(DeliveryStatus.DEAD)}",
        "dead",
    )


def waiting_fan_outs() -> TextualSelect:
    """Return the query for the number of events whose deliveries are not all written yet, as `waiting`."""
    return _counts(f"SELECT count(*) AS waiting FROM (SELECT 1 FROM fan_out LIMIT {MOST_COUNTED}) AS found", "waiting")


def database_size() -> TextualSelect:
    """Return the query for the size of the database in bytes, as `bytes`; only PostgreSQL has it."""
    return _counts("SELECT pg_database_size(current_database()) AS bytes", "bytes")


def _due(table: str, column: str, condition: str, is_free: str, owners: str) -> TextualSelect:
    """Return the query for what is due in a table: how much, how much is late, and since when the oldest is.

    Its parameters are `now` and `late`, the time before which what is due is late. `oldest` is None if nothing is due.
    """
    due, overdue = (
        _count(table, column, f"{condition} AND due_at <= :{before} AND {is_free}") for before in ("now", "late")
    )
    first = f"""SELECT due_at FROM {table}
        WHERE {table}.{column} = owner.id AND {condition} AND due_at <= :now AND {is_free} ORDER BY due_at LIMIT 1"""
    oldest = f"SELECT min(oldest) FROM (SELECT ({first}) AS oldest FROM owner) AS each_owner"
    query = text(f"WITH RECURSIVE {owners} SELECT {due} AS due, {overdue} AS overdue, ({oldest}) AS oldest")
    moments = (bindparam("now", type_=Moment()), bindparam("late", type_=Moment()))
    return query.bindparams(*moments).columns(due=BigInteger(), overdue=BigInteger(), oldest=Moment())


def _owners(name: str, table: str, column: str, condition: str) -> str:
    """Return the common table expression `name(id)`: each value of a column in rows of a condition, then NULL."""
    least = f"SELECT min({column}) FROM {table} WHERE {condition}"
    return (
        f"{name}(id) AS ({least} UNION ALL SELECT ({least} AND {column} > {name}.id) FROM {name} WHERE id IS NOT NULL)"
    )


def _count(table: str, column: str, condition: str) -> str:
    """Return the expression for how many rows of a condition the owners have, up to `MOST_COUNTED` of each."""
    of_owner = f"SELECT 1 FROM {table} WHERE {table}.{column} = owner.id AND {condition} LIMIT {MOST_COUNTED}"
    each = f"SELECT (SELECT count(*) FROM ({of_owner}) AS found) AS number FROM owner"
    return f"(SELECT CAST(coalesce(sum(number), 0) AS BIGINT) FROM ({each}) AS counted)"


def _is(status: str) -> str:
    return f"status = '{status}'"


def _counts(query: str, *names: str) -> TextualSelect:
    columns: dict[str, Any] = {name: BigInteger() for name in names}
    return text(query).columns(**columns)
