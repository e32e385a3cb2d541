"""Finding a page of the tasks that pass several filters, without reading a table of which few rows pass.

A planner chooses an index by how often a value is on average. Where that is wrong, it reads a million rows for a page
of none. So it is asked first how many tasks each filter leaves, up to `FEW`, which an index answers. If one leaves few,
the others are applied to those alone; otherwise tasks that pass are frequent, and are met soon on the way through the
list. What is left is a list where each filter leaves many tasks and all of them together leave none.

Metadata have no index. Their values are in a table (`models.TaskMetadataValue`), which is some seconds behind: the
tasks that are not in it yet are found by their events.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Executable, Select, func, select, union

from models import EventType
from models.conditions import IS_OF_ANOTHER_PROVIDER
from receiver.domain.searched_values import UNLISTED, listed_form
from receiver.storage.page_filter import PageFilter
from receiver.storage.tables import events, statistic_positions, task_metadata_values, tasks
from receiver.storage.tasks import TaskFilter, is_wanted, tasks_by_keys, tasks_matching
from receiver.storage.time_bounds import is_after

FEW = 1000
MOST_BEHIND = 5000
"""Up to how many events that are not counted yet are looked through for new tasks."""

_METADATA = "metadata "
_FIRST_PROVIDER = "piapi"
"""The one whose tasks no index has: where there are any, they are frequent."""
_ORDERED = (["state"], ["organization", "task_type"], ["organization", "run_uid"])
"""The filters that an index answers in the order of the list."""

Read = Callable[[Executable], Awaitable[list[dict[str, Any]]]]


async def page_of_tasks(read: Read, wanted: TaskFilter, limit: int) -> Select[Any]:
    """Return the query for the newest tasks that pass a filter, newest first. Raises `StorageUnavailable`."""
    ways = dict(_ways(wanted))
    if not wanted.metadata and wanted.created_before is None and list(ways) in _ORDERED:
        return tasks_matching(wanted, limit)  # in the order of that index
    numbers = await _numbers(read, wanted, ways)
    behind, unlisted = numbers.pop("behind", 0), numbers.pop("unlisted", 0)
    is_near = behind <= MOST_BEHIND and unlisted <= FEW
    least = min(numbers, key=lambda name: numbers[name])
    listed = next((name for name in ways if name.startswith(_METADATA)), None)
    if numbers[least] <= FEW and (is_near or not least.startswith(_METADATA)):
        others = _unlisted(wanted) if least.startswith(_METADATA) else []
        return tasks_by_keys(await _among(read, wanted, [ways[least], *others], limit))
    if listed is None or not is_near:
        return tasks_matching(replace(wanted, is_frequent=set(ways) <= {"organization", "time"}), limit)
    return tasks_by_keys(await _along(read, wanted, ways[listed], limit))


def _ways(wanted: TaskFilter) -> Iterator[tuple[str, Select[Any]]]:
    """Yield the queries for row keys that an index serves, each of tasks that pass some of the filters."""
    named = {"status": wanted.status, "model": wanted.model}
    indexed = {name: value for name, value in named.items() if value is not None}
    yield "state" if indexed else "organization", _keys(wanted, indexed)
    if wanted.created_after is not None:
        yield "time", select(tasks.c.id).where(is_after(tasks, wanted.created_after))
    for name, value in (("task_type", wanted.task_type), ("run_uid", wanted.run_uid)):
        if value is not None:
            yield name, _keys(wanted, {name: value})
    if wanted.provider not in (None, _FIRST_PROVIDER):
        yield "provider", _keys(wanted, {"provider": wanted.provider}).where(IS_OF_ANOTHER_PROVIDER)
    for name, value in wanted.metadata.items():
        if (form := listed_form(value)) is not None:
            yield f"{_METADATA}{name}", _listed(wanted, form)


def _keys(wanted: PageFilter, equal: dict[str, Any]) -> Select[Any]:
    own = PageFilter(organization_id=wanted.organization_id, before=wanted.before)
    return select(tasks.c.id).where(*own.conditions(tasks, **equal))


def _listed(wanted: PageFilter, form: str) -> Select[Any]:
    table = task_metadata_values.c
    has_it = [table.organization_id == wanted.organization_id, table.value == form]
    if wanted.before is not None:
        has_it.append(table.task_id < wanted.before)
    return select(table.task_id.label("id")).where(*has_it)


async def _numbers(read: Read, wanted: TaskFilter, ways: dict[str, Select[Any]]) -> dict[str, int]:
    """Return how many tasks each query finds, up to one more than `FEW`.

    Of a filter on metadata also `behind`, how many events are not counted yet, and `unlisted`, how many tasks have very
    many values.
    """
    asked = {**ways, "unlisted": _listed(wanted, UNLISTED)} if wanted.metadata else ways
    counts = {name: _count(way.limit(FEW + 1)) for name, way in asked.items()}
    if wanted.metadata:
        counts["behind"] = _count(_uncounted(events.c.id, MOST_BEHIND + 1))
    (row,) = await read(select(*(count.label(f"way_{n}") for n, count in enumerate(counts.values()))))
    return dict(zip(counts, row.values(), strict=True))


async def _among(read: Read, wanted: TaskFilter, ways: Sequence[Select[Any]], limit: int) -> list[int]:
    """Return the keys of the page, of tasks that are few."""
    found = _united([way.limit(FEW + MOST_BEHIND) for way in ways])
    # `id + 0`, so that what was found is sorted: a planner may prefer to meet it on its way through the table.
    query = select(tasks.c.id).where(tasks.c.id.in_(select(found.c.id)), is_wanted(wanted))
    return _read_keys(await read(query.order_by((tasks.c.id + 0).desc()).limit(limit)))


async def _along(read: Read, wanted: TaskFilter, way: Select[Any], limit: int) -> list[int]:
    """Return the keys of the page, of tasks that have a frequent value in their metadata."""
    table = task_metadata_values.c
    newest = way.join(tasks, tasks.c.id == table.task_id).where(is_wanted(wanted))
    rest = _united(_unlisted(wanted))
    others = select(tasks.c.id).where(tasks.c.id.in_(select(rest.c.id)), is_wanted(wanted)).limit(limit + MOST_BEHIND)
    found = _united([newest.order_by(table.task_id.desc()).limit(limit), others])
    return _read_keys(await read(select(found.c.id).order_by(found.c.id.desc()).limit(limit)))


def _united(queries: Sequence[Select[Any]]) -> Any:
    return union(*(select(each.subquery().c.id) for each in queries)).subquery()


def _unlisted(wanted: PageFilter) -> list[Select[Any]]:
    """Return the queries for the tasks of which not all values are listed: with very many, or created just now."""
    return [_listed(wanted, UNLISTED), _new_tasks()]


def _new_tasks() -> Select[Any]:
    found = _uncounted(events.c.task_id, MOST_BEHIND, events.c.type).subquery()
    return select(found.c.task_id.label("id")).where(found.c.type == EventType.TASK_CREATED)


def _uncounted(column: ColumnElement[Any], limit: int, *more: ColumnElement[Any]) -> Select[Any]:
    """Return the query for the oldest events that are not counted yet."""
    position = select(statistic_positions.c.position).where(statistic_positions.c.log == "events").scalar_subquery()
    return select(column, *more).where(events.c.id > position).order_by(events.c.id).limit(limit)


def _count(query: Select[Any]) -> Any:
    return select(func.count()).select_from(query.subquery()).scalar_subquery()


def _read_keys(rows: Sequence[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]
