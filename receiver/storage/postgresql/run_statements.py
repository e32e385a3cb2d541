"""The statements on PostgreSQL that advance runs: one for any number of runs, run on the driver itself.

`receiver.storage.postgresql.transaction` says why arrays, and why some of them are in a `SELECT`.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import asyncpg

from receiver.storage.postgresql.statement_parts import arrays, columns_of, is_given
from receiver.storage.run_rows import (
    CHANGING_RUN_COLUMNS,
    CHANGING_STEP_COLUMNS,
    NEW_RUN_COLUMNS,
    NEW_STEP_COLUMNS,
    RUN_COLUMNS,
    STEP_COLUMNS,
)
from receiver.storage.tables import run_steps, runs
from receiver.storage.transaction import Values


def _assignments(names: Iterable[str]) -> str:
    return ", ".join(f"{name} = given.{name}" for name in names)


_RUN = f"{', '.join(f'run.{name}' for name in RUN_COLUMNS)}, organization.uid AS organization_uid"
_STEP = ", ".join("spec::text" if name == "spec" else name for name in STEP_COLUMNS)
_LOCK_RUNS = f"""
SELECT {_RUN} FROM run JOIN organization ON organization.id = run.organization_id
WHERE run.uid = ANY((SELECT $1::uuid[])::uuid[]) ORDER BY run.id FOR NO KEY UPDATE OF run
"""
_STEPS = f"""
SELECT {_STEP} FROM run_step
WHERE run_id = ANY((SELECT $1::bigint[])::bigint[]) ORDER BY run_id, position
"""
READ_RUNS = f"""
WITH found AS MATERIALIZED (
    SELECT {_RUN}, run.xmin AS version FROM run JOIN organization ON organization.id = run.organization_id
    WHERE run.uid = ANY((SELECT $1::uuid[])::uuid[])
), step AS (
    SELECT {_STEP} FROM run_step WHERE run_id = ANY(ARRAY(SELECT id FROM found))
)
SELECT found.*, step.* FROM found FULL JOIN step ON false
"""
"""Reads runs with their versions, and their steps, without locks: each row is a run or a step."""


def write_run(first: int) -> str:
    """Return the statement that writes runs; the first parameter of `run_arrays` has the number `first`."""
    return f"""UPDATE run SET updated_at = ${first}, {_assignments(CHANGING_RUN_COLUMNS)}
FROM unnest((SELECT ${first + 1}::bigint[]), {arrays(runs, CHANGING_RUN_COLUMNS, first + 2)})
    AS given(id, {", ".join(CHANGING_RUN_COLUMNS)})
WHERE run.id = given.id AND {is_given("run.id", first + 1)}"""


def write_step(first: int) -> str:
    """Return the statement that writes the steps of runs; the parameters are those of `write_run`."""
    first += 2 + len(CHANGING_RUN_COLUMNS)
    return f"""UPDATE run_step SET {_assignments(CHANGING_STEP_COLUMNS)}
FROM unnest((SELECT ${first}::bigint[]), {arrays(run_steps, CHANGING_STEP_COLUMNS, first + 1)})
    AS given(id, {", ".join(CHANGING_STEP_COLUMNS)})
WHERE run_step.id = given.id AND {is_given("run_step.id", first)}"""


def run_arrays(changed: Sequence[Values], steps: Sequence[Values], now: datetime) -> list[Any]:
    """Return the parameters for runs and steps that are written."""
    return [
        now,
        [run["id"] for run in changed],
        *columns_of(runs, CHANGING_RUN_COLUMNS, changed),
        [step["id"] for step in steps],
        *columns_of(run_steps, CHANGING_STEP_COLUMNS, steps),
    ]


RUN_PARAMETERS = 3 + len(CHANGING_RUN_COLUMNS) + len(CHANGING_STEP_COLUMNS)
"""How many parameters `run_arrays` returns."""
_WRITE_RUNS = f"WITH written AS ({write_run(1)})\n{write_step(1)}"
_READ_COLUMNS = (*RUN_COLUMNS, "organization_uid")


def insert_run(first: int) -> str:
    """Return the statement that inserts runs; the first parameter of `new_run_arrays` has the number `first`."""
    names = NEW_RUN_COLUMNS
    return f"INSERT INTO run ({', '.join(names)}) SELECT * FROM unnest({arrays(runs, names, first)})"


def insert_step(first: int) -> str:
    """Return the statement that inserts the steps of `new_run`, the rows of `insert_run`, whose parameters it has."""
    first += len(NEW_RUN_COLUMNS)
    names = NEW_STEP_COLUMNS
    return f"""INSERT INTO run_step (run_id, {", ".join(names)})
SELECT new_run.id, {", ".join(f"given.{name}" for name in names)}
FROM unnest((SELECT ${first}::uuid[]), {arrays(run_steps, names, first + 1)}) AS given(run_uid, {", ".join(names)})
JOIN new_run ON new_run.uid = given.run_uid"""


def new_run_arrays(new: Sequence[Values]) -> list[Any]:
    """Return the parameters for runs that are inserted with their steps."""
    steps = [step for run in new for step in run["steps"]]
    return [
        *columns_of(runs, NEW_RUN_COLUMNS, new),
        [run["uid"] for run in new for _ in run["steps"]],
        *columns_of(run_steps, NEW_STEP_COLUMNS, steps),
    ]


NEW_RUN_PARAMETERS = len(NEW_RUN_COLUMNS) + 1 + len(NEW_STEP_COLUMNS)
"""How many parameters `new_run_arrays` returns."""
_INSERT_RUNS = f"WITH new_run AS ({insert_run(1)} RETURNING id, uid)\n{insert_step(1)}"


async def lock_runs(driver: asyncpg.Connection, uids: Collection[str]) -> list[dict[str, Any]]:
    """Lock runs in the order of their row keys; return them with their steps."""
    found: list[dict[str, Any]] = [{**row, "steps": []} for row in await driver.fetch(_LOCK_RUNS, list(uids))]
    steps = {run["id"]: run["steps"] for run in found}
    # Read after the lock was taken, so that changes of another process are seen.
    for row in await driver.fetch(_STEPS, list(steps)):
        steps[row["run_id"]].append(dict(row))
    return found


def runs_of(rows: Sequence[asyncpg.Record]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the runs of the rows of `READ_RUNS` with their steps, in the order of their row keys, and each version."""
    read = sorted((row for row in rows if row[0] is not None), key=itemgetter(0))
    found = [{**dict(zip(_READ_COLUMNS, row, strict=False)), "steps": []} for row in read]
    steps = {run["id"]: run["steps"] for run in found}
    first = len(_READ_COLUMNS) + 1
    for row in rows:
        if row[0] is None:
            step = dict(zip(STEP_COLUMNS, row[first:], strict=True))
            steps[step["run_id"]].append(step)
    for of_run in steps.values():
        of_run.sort(key=itemgetter("position"))
    return found, [row[len(_READ_COLUMNS)] for row in read]


async def write_runs(
    driver: asyncpg.Connection, changed: Sequence[Values], steps: Sequence[Values], now: datetime
) -> None:
    """Write the changed columns of locked runs and of their steps."""
    await driver.execute(_WRITE_RUNS, *run_arrays(changed, steps, now))


async def insert_runs(driver: asyncpg.Connection, new: Sequence[Values]) -> None:
    """Insert runs with their steps."""
    await driver.execute(_INSERT_RUNS, *new_run_arrays(new))
