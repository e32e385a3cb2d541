"""Free-text search of tasks: by id, the provider's id, model, and values of metadata.

Each way to match is a query of its own that an index serves and that ends after a page; the newest of what they find
are the page. A condition with OR would have the database read the whole table.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Executable, Select, and_, func, select, union

from receiver.domain.ids import is_id
from receiver.domain.searched_values import searched_form
from receiver.storage.tables import task_metadata_values, tasks
from receiver.storage.tasks import TaskFilter, is_wanted, models_of

SHORTEST_ID = 8
"""Characters of an id by whose beginning a task is found."""
SHORTEST_VALUE = 3
MOST_MATCHES = 10
"""Models, and values of metadata, whose tasks are looked for."""
_MOST_BEGINNING = 1000
"""Of how many ids at the provider that begin so the newest are found."""
_ZEROS, _LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
_SHORTEST_BASE = 6
_PLAIN = re.compile(r"[0-9A-Za-z_-]+")
_GREATEST = "\U0010ffff"

Read = Callable[[Executable], Awaitable[list[dict[str, Any]]]]


async def search_tasks(read: Read, wanted: TaskFilter, text: str, providers: Collection[str], limit: int) -> list[int]:
    """Return the row keys of the newest tasks that match a text and a filter, newest first.

    `providers` are the names of those whose ids are looked at. Raises `StorageUnavailable`.
    """
    text = text.replace("\0", "").strip()
    form = searched_form(text)
    if not form:
        return []
    models = [row["model"] for row in await read(models_of(wanted.organization_id)) if form in row["model"].lower()]
    if wanted.model is not None:
        models = [wanted.model] if wanted.model in models else []
    values = [row["value"] for row in await read(_values(wanted.organization_id, form))]
    ways = [
        *_by_id(wanted, text, sorted(providers), limit),
        *(_newest(replace(wanted, model=model), limit) for model in models[:MOST_MATCHES]),
        *(_with_value(wanted, value, limit) for value in values),
    ]
    found = union(*(select(each.subquery().c.id) for each in ways)).subquery()
    return [row["id"] for row in await read(select(found.c.id).order_by(found.c.id.desc()).limit(limit))]


def _by_id(wanted: TaskFilter, text: str, providers: Sequence[str], limit: int) -> list[Select[Any]]:
    uid = text.lower()
    has_id: list[ColumnElement[bool]] = [
        and_(tasks.c.provider.in_(providers), tasks.c.provider_task_id == text),
        *([tasks.c.uid == uid] if is_id(uid) else []),
    ]
    ways = [select(tasks.c.id).where(is_wanted(wanted), each).limit(limit) for each in has_id]
    if _begins_id(uid):
        is_between = tasks.c.uid.between(uid + _ZEROS[len(uid) :], uid + _LAST[len(uid) :])
        # An id begins with the time of its creation, so that its order is nearly that of row keys.
        ways.append(select(tasks.c.id).where(is_wanted(wanted), is_between).order_by(tasks.c.uid.desc()).limit(limit))
    if is_beginning := _begins_provider_id(text):
        ways += [_beginning(wanted, provider, *is_beginning, text) for provider in providers]
    return ways


def _begins_id(text: str) -> bool:
    """Return whether a text may be the beginning of one of our ids."""
    is_long = SHORTEST_ID <= len(text) < len(_ZEROS)
    return is_long and is_id(text + _ZEROS[len(text) :])


def _begins_provider_id(text: str) -> tuple[str, str] | None:
    """Return between which texts ids at the provider are that begin with a text; None if it is none to look for.

    The order of texts is the database's own, in which punctuation may not count and small and capital letters may be
    next to each other. In each such order what begins with a text is before the text whose last letter or digit is the
    next one.
    """
    base = text.rstrip("-_zZ")
    if len(text) < SHORTEST_ID or len(base) < _SHORTEST_BASE or not _PLAIN.fullmatch(text):
        return None
    last = "a" if base[-1] == "9" else chr(ord(base[-1]) + 1)
    return base, base[:-1] + last


def _beginning(wanted: TaskFilter, provider: str, first: str, last: str, text: str) -> Select[Any]:
    is_between = and_(tasks.c.provider_task_id >= first, tasks.c.provider_task_id < last)
    is_there = and_(tasks.c.provider == provider, tasks.c.provider_task_id.is_not(None), is_between)
    begins = func.substr(tasks.c.provider_task_id, 1, len(text)) == text
    query = select(tasks.c.id).where(is_wanted(wanted), is_there, begins)
    return query.order_by(tasks.c.provider_task_id.desc()).limit(_MOST_BEGINNING)


def _newest(wanted: TaskFilter, limit: int) -> Select[Any]:
    return select(tasks.c.id).where(is_wanted(wanted)).order_by(tasks.c.id.desc()).limit(limit)


def _with_value(wanted: TaskFilter, value: str, limit: int) -> Select[Any]:
    table = task_metadata_values.c
    has_value = [table.organization_id == wanted.organization_id, table.value == value]
    if wanted.before is not None:
        has_value.append(table.task_id < wanted.before)
    if wanted == TaskFilter(organization_id=wanted.organization_id, before=wanted.before):
        # Without a join, which takes longer to plan than to run.
        return select(table.task_id.label("id")).where(*has_value).order_by(table.task_id.desc()).limit(limit)
    query = select(tasks.c.id).join(task_metadata_values, table.task_id == tasks.c.id)
    return query.where(*has_value, is_wanted(wanted)).order_by(table.task_id.desc()).limit(limit)


def _values(organization_id: int, form: str) -> Select[Any]:
    """Return the query for the values that are a text, or begin with it if it is not too short: `MOST_MATCHES` at most.

    It looks for the next greater value again and again, as `models_of` does for models.
    """
    table = task_metadata_values.c
    is_long = len(form) >= SHORTEST_VALUE
    begins = table.value < form + _GREATEST if is_long else table.value == form
    is_ours = and_(table.organization_id == organization_id, begins)
    found = (
        select(func.min(table.value).label("value")).where(is_ours, table.value >= form).cte("found", recursive=True)
    )
    greater = select(func.min(table.value)).where(is_ours, table.value > found.c.value).scalar_subquery()
    found = found.union_all(select(greater).where(found.c.value.is_not(None)))
    return select(found.c.value).where(found.c.value.is_not(None)).limit(MOST_MATCHES)
