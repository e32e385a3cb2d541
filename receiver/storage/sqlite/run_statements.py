"""The statements on SQLite that advance runs: one for any number of runs, run on the driver itself.

The writer's transaction holds SQLite's only write lock, so no row is locked.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Table

from receiver.storage.run_rows import (
    CHANGING_RUN_COLUMNS,
    CHANGING_STEP_COLUMNS,
    NEW_RUN_COLUMNS,
    NEW_STEP_COLUMNS,
    RUN_COLUMNS,
    STEP_COLUMNS,
)
from receiver.storage.sqlite.statement_parts import encoded, next_key, placeholders
from receiver.storage.sqlite.values import decoder_of, write_document, write_moment
from receiver.storage.tables import run_steps, runs
from receiver.storage.transaction import Values


def _decoders(table: Table, but: Collection[str] = ()) -> list[tuple[str, Any]]:
    found = ((each.name, decoder_of(each.type)) for each in table.columns if each.name not in but)
    return [(name, decode) for name, decode in found if decode is not None]


_RUN_DECODERS = _decoders(runs)
_STEP_DECODERS = _decoders(run_steps, but=("spec",))
_LOCK_RUNS = (
    f"SELECT {', '.join(f'run.{name}' for name in RUN_COLUMNS)}, organization.uid FROM run "
    "JOIN organization ON organization.id = run.organization_id "
    "WHERE run.uid IN (SELECT value FROM json_each(?)) ORDER BY run.id"
)
_STEPS = (
    f"SELECT {', '.join(STEP_COLUMNS)} FROM run_step WHERE run_id IN (SELECT value FROM json_each(?)) "
    "ORDER BY run_id, position"
)


def _assignments(names: Iterable[str]) -> str:
    return ", ".join(f"{name} = ?" for name in names)


def _insert_into(table: Table, names: Sequence[str]) -> str:
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({placeholders(len(names))})"


_UPDATE_RUN = f"UPDATE run SET {_assignments((*CHANGING_RUN_COLUMNS, 'updated_at'))} WHERE id = ?"
_UPDATE_STEP = f"UPDATE run_step SET {_assignments(CHANGING_STEP_COLUMNS)} WHERE id = ?"
_INSERT_RUN = _insert_into(runs, ("id", *NEW_RUN_COLUMNS))
_INSERT_STEP = _insert_into(run_steps, ("run_id", *NEW_STEP_COLUMNS))


def lock_runs(driver: sqlite3.Connection, uids: Collection[str]) -> list[dict[str, Any]]:
    """Return runs in the order of their row keys, with their steps."""
    names = (*RUN_COLUMNS, "organization_uid")
    found = [_row(names, row, _RUN_DECODERS) for row in driver.execute(_LOCK_RUNS, (write_document(list(uids)),))]
    steps: dict[int, list[dict[str, Any]]] = {run["id"]: run.setdefault("steps", []) for run in found}
    for row in driver.execute(_STEPS, (write_document(list(steps)),)):
        step = _row(STEP_COLUMNS, row, _STEP_DECODERS)
        steps[step["run_id"]].append(step)
    return found


def write_runs(driver: sqlite3.Connection, changed: Sequence[Values], steps: Sequence[Values], now: datetime) -> None:
    """Write the changed columns of runs and of steps."""
    moment = write_moment(now)
    driver.executemany(_UPDATE_STEP, [[*encoded(run_steps, CHANGING_STEP_COLUMNS, each), each["id"]] for each in steps])
    driver.executemany(
        _UPDATE_RUN, [[*encoded(runs, CHANGING_RUN_COLUMNS, each), moment, each["id"]] for each in changed]
    )


def insert_runs(driver: sqlite3.Connection, new: Sequence[Values]) -> None:
    """Insert runs with their steps."""
    numbered = list(enumerate(new, next_key(driver, runs)))
    driver.executemany(_INSERT_RUN, [[key, *encoded(runs, NEW_RUN_COLUMNS, run)] for key, run in numbered])
    driver.executemany(
        _INSERT_STEP,
        [[key, *encoded(run_steps, NEW_STEP_COLUMNS, step)] for key, run in numbered for step in run["steps"]],
    )


def _row(names: Sequence[str], values: Sequence[Any], decoders: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(zip(names, values, strict=True))
    for name, decode in decoders:
        if row[name] is not None:
            row[name] = decode(row[name])
    return row
