"""PiAPI's own list of tasks, read to its end.

Source: `receiver/providers/piapi/CONTRACT.md`, "Lists and account" and "Families of models".

Why the end matters. A task whose create call got no answer is given up, or its attempt is sent again, because the list
does not have it. So what the list does not show must be told from what was not read. It has been read to its end when a
page is empty or not full, or when the tasks on it are older than the time that was asked about. Anything else that ends
the reading makes it incomplete: no answer, one that is no list, a list that shows the same page again and again.

New tasks that are made meanwhile move the others to later pages: those are seen twice and counted once, none is missed.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec import Struct, field

from receiver.domain.model_families import history_name
from receiver.large_bodies import read_by_size
from receiver.providers import fields
from receiver.providers.api import Window
from receiver.providers.base import CallerKey, History
from receiver.providers.calls import NotSent
from receiver.providers.piapi.calls import CallOutcome, Calls, PiAPIResponse

PAGE_SIZE = 100
"""The most that PiAPI's list accepts."""
_MOST_PAGES = 10_000
_MOST_REPEATS = 3
"""After this number of pages in a row without a task that was not seen before, the list is taken to repeat itself."""
_RETRY_SECONDS = (0.25, 0.5)
"""Before a page is asked for again that got no answer. The first page is not: the provider is down, or has no list."""
_MOST_WAITS = 20
"""A page is asked for again this many times because PiAPI asked to wait."""
_LIST_NAMES = ("data", "list", "tasks", "items")
_UNKNOWN_FAMILY = frozenset({400, 404, 422})
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

Keep = Callable[[dict[str, Any]], bool]


class _Reading(Struct):
    """What was read. Of tasks that are not kept, only the ids are remembered, and those of one list at a time.

    `keep` is called in a thread for the items of a large page.
    """

    keep: Keep
    kept: list[dict[str, Any]] = field(default_factory=list)
    seen: set[str | int] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    def take(self, items: list[Any]) -> bool:
        """Take the items of a page; return whether one of them is a task that was not seen before."""
        is_news = False
        for item in items:
            if not isinstance(item, dict):
                continue
            task_id = item.get("task_id")
            if isinstance(task_id, str | int):
                if task_id in self.seen:
                    continue
                self.seen.add(task_id)
                is_news = True
            if item.get("model"):
                self.models.add(str(item["model"]).strip().lower()[:200])
            if self.keep(item):
                self.kept.append(item)
        return is_news


async def read_history(calls: Calls, window: Window, keep: Keep, caller: CallerKey | None) -> History:
    """Return the tasks of a window that `keep` accepts, newest first, and whether the list was read to its end.

    PiAPI filters by families, not by models: the tasks of the model's family are asked for, and those of all models if
    PiAPI names no such family or its list has no task of the model. Raises nothing for what PiAPI does.
    """
    family = history_name(window.model)
    reading = _Reading(keep)
    is_complete = True
    if family is not None:
        is_complete = await _read_list(calls, window, family, reading, caller)
    if family is None or (is_complete and not _may_have(window.model, reading)):
        is_complete = await _read_list(calls, window, None, reading, caller)
    return History(sorted(_each_once(reading.kept), key=_created_at, reverse=True), is_complete)


async def _read_list(
    calls: Calls, window: Window, family: str | None, reading: _Reading, caller: CallerKey | None
) -> bool:
    """Read the list of a family, or of all if it is None; return whether it was read to its end."""
    repeats, count = 0, 0
    reading.seen.clear()
    for page in range(1, _MOST_PAGES + 1):
        answer = await _page(calls, window, family, page, caller)
        if answer is None:
            return False
        if family is not None and answer.effective_status in _UNKNOWN_FAMILY:
            return True  # PiAPI does not know the family: it has no task of it
        items = _list_in(answer)
        if items is None:
            return False
        count += len(items)
        is_news = await read_by_size(answer.size, partial(reading.take, items))  # which looks at all of each item
        repeats = 0 if is_news or not items else repeats + 1
        if not items or _is_last(items, count, _total_in(answer)) or _is_before(items, window.since):
            return True
        if repeats >= _MOST_REPEATS:
            return False
    return False


async def _page(
    calls: Calls, window: Window, family: str | None, page: int, caller: CallerKey | None
) -> PiAPIResponse | None:
    """Ask for one page, again while PiAPI asks to wait; return its answer, None without a usable one."""
    params: dict[str, str | int] = {
        "page": page,
        "page_size": PAGE_SIZE,
        "start_time": max(0, int(window.since.timestamp())),
    }
    if family is not None:
        params["model"] = family
    if window.until is not None:
        params["end_time"] = int(window.until.timestamp()) + 1
    failures = 0
    for _ in range(_MOST_WAITS):
        outcome = await calls.call("GET", "/api/open/tasks/histories", params=params, caller=caller)
        if isinstance(outcome, PiAPIResponse):
            accepted = {None, 200} | (_UNKNOWN_FAMILY if family is not None else frozenset())
            if outcome.effective_status in accepted:
                return outcome
        if (wait := _pause_asked(calls, outcome)) is None:
            if page == 1 or failures >= len(_RETRY_SECONDS):
                return None
            wait = _RETRY_SECONDS[failures]
            failures += 1
        await asyncio.sleep(wait)
    return None


def _pause_asked(calls: Calls, outcome: CallOutcome) -> float | None:
    """Return the seconds to wait, if PiAPI asked for a pause or the rate limit admitted no call; None if neither."""
    if isinstance(outcome, NotSent):
        return None if outcome.retry_after is None else calls.rate_limiter.paused_for()
    if not isinstance(outcome, PiAPIResponse) or outcome.effective_status not in (429, 503):
        return None
    is_asked = outcome.effective_status == 429 or outcome.retry_after is not None
    return calls.rate_limiter.paused_for() if is_asked else None


def _list_in(answer: PiAPIResponse) -> list[Any] | None:
    """Return the list: `data` itself, or under one of the names that PiAPI uses for it. An empty one may be null."""
    data = answer.body.get("data") if isinstance(answer.body, dict) else answer.body
    if isinstance(data, dict):
        named = [data[name] for name in _LIST_NAMES if name in data]
        data = next((each for each in named if isinstance(each, list)), named[0] if named else data)
    if data is None and answer.effective_status == 200:
        return []
    return data if isinstance(data, list) else None


def _total_in(answer: PiAPIResponse) -> int | None:
    """Return how many tasks the list says that it has, None if it does not say."""
    data = answer.body.get("data") if isinstance(answer.body, dict) else None
    total = data.get("total") if isinstance(data, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) else None


def _is_last(items: list[Any], count: int, total: int | None) -> bool:
    """Return whether a page is the last one: it is not full, and the list says of no more tasks than were read."""
    return len(items) < PAGE_SIZE and (total is None or count >= total)


def _is_before(items: list[Any], since: datetime) -> bool:
    """Return whether a list that shows the newest tasks first has reached those made before `since`."""
    times = [moment for item in items if isinstance(item, dict) and (moment := _created_at(item)) > _LONG_AGO]
    return len(times) > 1 and times[-1] < since and times[-1] < times[0]


def _may_have(model: str, reading: _Reading) -> bool:
    """Whether one of the tasks may have this model: one names it, or none of them names any."""
    return model.strip().lower()[:200] in reading.models or (bool(reading.seen) and not reading.models)


def _each_once(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tasks of both lists without repetitions."""
    found: dict[Any, dict[str, Any]] = {}
    for number, task in enumerate(tasks):
        task_id = task.get("task_id")
        found.setdefault(task_id if isinstance(task_id, str | int) else ("without id", number), task)
    return list(found.values())


def _created_at(task: dict[str, Any]) -> datetime:
    times = fields.read_meta(task) or task
    return fields.read_time(times.get("created_at")) or _LONG_AGO
