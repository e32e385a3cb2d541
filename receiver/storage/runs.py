"""Runs and their steps: the queries of the API, and loading them locked in order to advance them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import field
from sqlalchemy import Select, func, select

from models import StepStatus
from receiver.domain.advance import UNDER_WAY
from receiver.domain.ids import is_id
from receiver.domain.steps import Definition, read_definition
from receiver.storage.large_rows import LargeRows, bytes_of
from receiver.storage.metadata_filter import has_metadata
from receiver.storage.page_filter import PageFilter
from receiver.storage.run_rows import RUN_COLUMNS, STEP_COLUMNS
from receiver.storage.tables import organizations, run_steps, runs
from receiver.storage.transaction import Transaction, Values

_BRIEF_COLUMNS = ("run_id", "name", "status", "task_uid", "started_at", "completed_at")
_WITH_ORGANIZATION = select(runs, organizations.c.uid.label("organization_uid")).join(
    organizations, organizations.c.id == runs.c.organization_id
)


class RunFilter(PageFilter, frozen=True, kw_only=True):
    """Which runs to list; `metadata` has the names and values that their metadata must have."""

    status: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def run_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one run, with its organization's id as `organization_uid`."""
    return _WITH_ORGANIZATION.where(runs.c.organization_id == organization_id, runs.c.uid == uid)


def runs_among(organization_id: int, uids: Collection[str]) -> Select[Any]:
    """Return the query for those of these ids that belong to runs of the organization."""
    of_organization = runs.c.organization_id == organization_id
    return select(runs.c.uid).where(of_organization, runs.c.uid.in_([uid for uid in uids if is_id(uid)]))


def runs_matching(wanted: RunFilter, limit: int) -> Select[Any]:
    """Return the query for a page of runs, newest first."""
    conditions = wanted.conditions(runs, status=wanted.status)
    conditions.extend(has_metadata(runs.c.metadata, name, value) for name, value in wanted.metadata.items())
    return _WITH_ORGANIZATION.where(*conditions).order_by(runs.c.id.desc()).limit(limit)


def large_runs(query: Select[Any]) -> LargeRows:
    """Return the query of a page of runs so that it can be read in pieces, by the sizes of their steps."""
    of_run = run_steps.c.run_id == runs.c.id
    size = select(func.coalesce(func.sum(bytes_of(run_steps)), 0)).where(of_run).correlate(runs).scalar_subquery()
    return LargeRows(query, runs.c.id, size)


def steps_of(run_keys: Collection[int]) -> Select[Any]:
    """Return the query for the steps of these runs, in the order of their positions."""
    return select(run_steps).where(run_steps.c.run_id.in_(run_keys)).order_by(run_steps.c.run_id, run_steps.c.position)


def brief_steps_of(run_keys: Collection[int]) -> Select[Any]:
    """Return the query for the steps of these runs without their documents."""
    return steps_of(run_keys).with_only_columns(*(run_steps.c[name] for name in _BRIEF_COLUMNS))


async def tasks_under_way(tx: Transaction, run_uids: Collection[str]) -> list[tuple[int, str, str]]:
    """Return (organization's row key, run's id, task's id) of the steps under way of these runs. Nothing is locked."""
    of_runs = select(runs.c.organization_id, runs.c.uid, run_steps.c.task_uid).join(
        run_steps, run_steps.c.run_id == runs.c.id
    )
    is_under_way = (run_steps.c.status.in_(UNDER_WAY), run_steps.c.task_uid.is_not(None))
    rows = await tx.execute(of_runs.where(runs.c.uid.in_(run_uids), *is_under_way))
    return [(row.organization_id, row.uid, row.task_uid) for row in rows]


async def lock_runs(tx: Transaction, uids: Collection[str]) -> list[dict[str, Any]]:
    """Lock runs in the order of their row keys; return each run's row, with the rows of its steps as `steps`.

    `definition` has what the documents of the steps say (`receiver.domain.steps.Definition`).
    """
    found = await tx.lock_runs(uids)
    for run in found:
        definition = run["definition"] = read_definition(tuple(step["spec"] for step in run["steps"]))
        for step, document in zip(run["steps"], definition.documents, strict=True):
            step["spec"] = document
    return found


def new_run(values: Values, organization_uid: str, definition: Definition) -> dict[str, Any]:
    """Return a run that is to be inserted, as `lock_runs` returns one, but that it and its steps have no row keys."""
    run = {**dict.fromkeys(RUN_COLUMNS), **values, "organization_uid": organization_uid, "definition": definition}
    steps = zip(definition.graph.steps, definition.documents, strict=True)
    new = [
        {"position": position, "name": step.id, "status": StepStatus.PENDING, "spec": document}
        for position, (step, document) in enumerate(steps)
    ]
    return {**run, "steps": [{**dict.fromkeys(STEP_COLUMNS), **step} for step in new]}


async def insert_runs(tx: Transaction, new: Sequence[Values]) -> None:
    """Insert runs with their steps; each is as `new_run` returns it."""
    await tx.insert_runs(new)


async def write_runs(tx: Transaction, changed: Sequence[Values], steps: Sequence[Values], now: datetime) -> None:
    """Write the changed columns of locked runs and of their steps, which are given as `lock_runs` returns them."""
    if changed or steps:
        await tx.write_runs(changed, steps, now)
