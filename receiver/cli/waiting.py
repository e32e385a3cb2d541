"""Waiting for tasks or a run to end: long polls side by side, through a restart of the service, with a live display."""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from receiver.cli.console import watched
from receiver.cli.failure import ServiceUnreachable, Status
from receiver.cli.service import connection, reaching, read_answer, segment
from receiver.cli.show import ENDS, percent_of
from receiver.cli.steps import RunDocument, live_steps

if TYPE_CHECKING:
    from rich.progress import Progress

_LONG_POLL_SECONDS = 30
_WATCHED_POLL_SECONDS = 3
"""Shorter where a person watches the progress."""
_WATCHED_RUN_SECONDS = 1
_PATIENCE_SECONDS = 60.0
"""How long a service that was there may be gone: it is being started again, as a rule."""
_PAUSE_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
"""How long the service may take to answer, besides the waiting that it was asked for."""
_MOST_ROWS = 12
_AT_ONCE = 100

TaskDocument = dict[str, Any]
LastSeen = dict[str, Any] | None
"""A task or a run as it was last seen, if it was."""
OnChange = Callable[[str, TaskDocument], None]


@dataclass(frozen=True)
class Waited:
    """How the waiting for one task ended: its last known state, and whether that is its end."""

    task_id: str
    task: TaskDocument | None

    @property
    def ended(self) -> bool:
        """Whether the task is over."""
        return _is_over(self.task)


def wait_for(ids: Sequence[str], longest: float | None, *, as_json: bool) -> list[Waited]:
    """Wait until all tasks ended, or for `longest` seconds; the results are in the order of `ids`."""
    with _display(ids, as_json) as news:
        seconds = _WATCHED_POLL_SECONDS if watched(as_json) else _LONG_POLL_SECONDS
        asked = [_Asked(f"/api/v1/task/{segment(each)}", partial(news, each)) for each in ids]
        found = asyncio.run(_wait_for_all(asked, longest, seconds))
    return [Waited(task_id, task) for task_id, task in zip(ids, found, strict=True)]


def wait_for_run(run_id: str, longest: float | None, *, as_json: bool) -> RunDocument | None:
    """Wait until a run ended, or for `longest` seconds; return its last known state."""
    with live_steps(as_json) as news:
        seconds = _WATCHED_RUN_SECONDS if watched(as_json) else _LONG_POLL_SECONDS
        path = f"/api/v1/runs/{segment(run_id)}"
        return asyncio.run(_wait_for_all([_Asked(path, news)], longest, seconds))[0]


def status_of(waited: Sequence[Waited]) -> Status:
    """Return the exit status: timed out if any task is not over, failed if any did not complete."""
    return end_status([each.task for each in waited])


def end_status(found: Sequence[LastSeen]) -> Status:
    """Return the exit status for tasks or runs as they are."""
    if not all(map(_is_over, found)):
        return Status.TIMED_OUT
    completed = all(each is not None and each["status"] == "completed" for each in found)
    return Status.DONE if completed else Status.TASK_FAILED


def _is_over(found: LastSeen) -> bool:
    return found is not None and found.get("status") in ENDS


@dataclass(frozen=True)
class _Asked:
    """What is asked for again and again, and who hears of each answer."""

    path: str
    news: Callable[[dict[str, Any]], None]


async def _wait_for_all(asked: Sequence[_Asked], longest: float | None, seconds: int) -> list[LastSeen]:
    async with httpx.AsyncClient(**connection(), limits=httpx.Limits(max_connections=_AT_ONCE)) as client:
        waits = [asyncio.ensure_future(_Wait(client, each, seconds).run(longest)) for each in asked]
        try:
            return await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


class _Wait:
    """Waits for one task or run."""

    def __init__(self, client: httpx.AsyncClient, asked: _Asked, seconds: int) -> None:
        self._client = client
        self._asked = asked
        self._seconds = seconds
        self._found: LastSeen = None

    async def run(self, longest: float | None) -> LastSeen:
        """Return what is known when it ended or the time is up."""
        loop = asyncio.get_running_loop()
        deadline = None if longest is None else loop.time() + longest
        await self._look(0)
        try:
            async with asyncio.timeout_at(deadline):
                while not _is_over(self._found):
                    left = self._seconds if deadline is None else math.ceil(deadline - loop.time())
                    began = loop.time()
                    await self._patiently(min(self._seconds, max(1, left)))
                    if not _is_over(self._found):
                        # A service that does not let us wait must not be flooded.
                        await asyncio.sleep(max(0.0, began + _PAUSE_SECONDS - loop.time()))
        except TimeoutError:
            pass
        return self._found

    async def _patiently(self, seconds: int) -> None:
        """Look, and bear it for a while if the service is gone."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._look(seconds)
            except ServiceUnreachable:
                if loop.time() > give_up:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _look(self, seconds: int) -> None:
        """Ask for it, and with `seconds` let the service wait so long for its end."""
        params: dict[str, str | int] = {"wait_for_completion": "true", "timeout_seconds": seconds} if seconds else {}
        with reaching(self._client.base_url):
            timeout = httpx.Timeout(seconds + _ANSWER_SECONDS, pool=None)
            answer = await self._client.get(self._asked.path, params=params, timeout=timeout)
        self._found = read_answer(answer)
        self._asked.news(self._found)


@contextmanager
def _display(ids: Sequence[str], as_json: bool) -> Iterator[OnChange]:
    """Show the tasks and how far they are while they are waited for, if a person watches."""
    if not watched(as_json):
        yield lambda task_id, task: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _bar_a_task(progress, ids) if len(ids) <= _MOST_ROWS else _one_bar(progress, ids)


def _bar_a_task(progress: "Progress", ids: Sequence[str]) -> OnChange:
    bars = {task_id: progress.add_task(f"{task_id}  ...", total=None) for task_id in ids}

    def news(task_id: str, task: TaskDocument) -> None:
        ended, percent = task.get("status") in ENDS, percent_of(task)
        progress.update(
            bars[task_id],
            description=f"{task_id}  {task.get('status')}",
            total=100 if ended or percent else None,
            completed=100 if ended else percent,
        )

    return news


def _one_bar(progress: "Progress", ids: Sequence[str]) -> OnChange:
    bar = progress.add_task(f"0 of {len(ids)} tasks ended", total=len(ids))
    over: set[str] = set()

    def news(task_id: str, task: TaskDocument) -> None:
        if task.get("status") in ENDS:
            over.add(task_id)
        progress.update(bar, description=f"{len(over)} of {len(ids)} tasks ended", completed=len(over))

    return news
