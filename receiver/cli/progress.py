"""Live displays of long work, on stderr, and only if a person watches.

Of tasks, a run's steps, a replay, a bulk action, a file. Each is a context that yields a function to call with each new
state.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from receiver.cli.console import cell, watched, watched_console
from receiver.cli.show import ENDS, STEP_COLUMNS, ApiObject, percent_of, step_row
from receiver.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

OnUpdate = Callable[[ApiObject], None]
OnTaskUpdate = Callable[[str, ApiObject], None]
"""Called with the task's id as the user gave it, and the task."""

STEP_UNDER_WAY = frozenset({"queued", "processing"})
"""The states of a step that has begun and has not ended. (See `receiver.cli.show.ENDS` for why they stand here.)"""
_MOST_BARS = 12
"""More tasks than this share one bar."""
_LIVE_COLUMNS = ("", "step", "action", "status", "took", "result")
"""The columns that fit on one line of a terminal; the first shows a spinner."""


@contextmanager
def task_progress(ids: Sequence[str], as_json: bool) -> Iterator[OnTaskUpdate]:
    """Show the progress of tasks: a bar for each, or one bar for many."""
    if not watched(as_json):
        yield lambda _task_id, _task: None
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with _progress(*columns) as progress:
        yield _bar_for_each(progress, ids) if len(ids) <= _MOST_BARS else _bar_for_all(progress, ids)


@contextmanager
def run_progress(as_json: bool) -> Iterator[OnUpdate]:
    """Show the steps of a run as a table."""
    if not watched(as_json):
        yield lambda _run: None
        return
    from rich.live import Live

    with Live(console=watched_console(), transient=True, refresh_per_second=8) as live:
        yield lambda run: live.update(_steps_table(run))


@contextmanager
def replay_progress(as_json: bool) -> Iterator[OnUpdate]:
    """Show how many deliveries of a replay have ended."""
    if not watched(as_json):
        yield lambda _replay: None
        return
    with _count_progress() as progress:
        bar = progress.add_task("delivered", total=None)

        def on_update(replay: ApiObject) -> None:
            ended = replay["delivered"] + replay["dead"] + replay["cancelled"]
            progress.update(bar, total=replay["deliveries"], completed=ended)

        yield on_update


@contextmanager
def bulk_action_progress(as_json: bool) -> Iterator[OnUpdate]:
    """Show how many tasks of a bulk action were acted on or refused."""
    if not watched(as_json):
        yield lambda _action: None
        return
    with _count_progress() as progress:
        bar = progress.add_task("tasks", total=None)

        def on_update(action: ApiObject) -> None:
            progress.update(bar, total=action["matched"], completed=action["done"] + action["failed"])

        yield on_update


@contextmanager
def rows_progress(description: str, total: int, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` rows have been handled; the yielded function takes the number just handled."""
    if not watched(as_json):
        yield lambda _rows: None
        return
    with _count_progress() as progress:
        bar = progress.add_task(description, total=total)
        yield lambda rows: progress.advance(bar, rows)


@contextmanager
def export_progress(as_json: bool, *, to_stdout: bool) -> Iterator[Callable[[int], None]]:
    """Show how many tasks are exported, unless they are on the terminal themselves.

    The yielded function takes the number just written.
    """
    if not watched(as_json) or (to_stdout and sys.stdout.isatty()):
        yield lambda _tasks: None
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed} tasks"), BarColumn(), TimeElapsedColumn())
    with _progress(*columns) as progress:
        bar = progress.add_task("exporting", total=None)
        yield lambda tasks: progress.advance(bar, tasks)


@contextmanager
def file_progress(file: BinaryIO, description: str, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show how much of a file has been read; the yielded function takes the number of bytes just read."""
    if not watched(as_json):
        yield lambda _size: None
        return
    from rich.progress import Progress

    total = file.seek(0, 2) if file.seekable() else None
    if total is not None:
        file.seek(0)
    # What the command prints on stdout is drawn above the bar only if stdout is the terminal too.
    with _progress(*Progress.get_default_columns(), redirect_stdout=sys.stdout.isatty()) as progress:
        bar = progress.add_task(description, total=total)
        yield lambda size: progress.advance(bar, size)


@contextmanager
def copy_progress(description: str, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """Show how much of a database is copied; the yielded function takes the bytes copied, and how many there are."""
    if not watched(as_json):
        yield lambda _copied, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with _progress(*columns) as progress:
        bar = progress.add_task(description, total=None)
        yield lambda copied, total: progress.update(bar, completed=copied, total=total)


def _progress(*columns: Any, redirect_stdout: bool = True) -> "Progress":
    from rich.progress import Progress

    return Progress(*columns, console=watched_console(), transient=True, redirect_stdout=redirect_stdout)


def _count_progress() -> "Progress":
    """Return what shows how many of a number are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    return _progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def _bar_for_each(progress: "Progress", ids: Sequence[str]) -> OnTaskUpdate:
    bars = {task_id: progress.add_task(printable(f"{task_id}  ..."), total=None) for task_id in ids}

    def on_update(task_id: str, task: ApiObject) -> None:
        ended, percent = task.get("status") in ENDS, percent_of(task)
        progress.update(
            bars[task_id],
            description=printable(f"{task_id}  {task.get('status')}"),
            total=100 if ended or percent else None,
            completed=100 if ended else percent,
        )

    return on_update


def _bar_for_all(progress: "Progress", ids: Sequence[str]) -> OnTaskUpdate:
    bar = progress.add_task(f"0 of {len(ids)} tasks ended", total=len(ids))
    ended: set[str] = set()

    def on_update(task_id: str, task: ApiObject) -> None:
        if task.get("status") in ENDS:
            ended.add(task_id)
        progress.update(bar, description=f"{len(ended)} of {len(ids)} tasks ended", completed=len(ended))

    return on_update


def _steps_table(run: ApiObject) -> "Table":
    from rich import box
    from rich.spinner import Spinner
    from rich.table import Table

    title = cell(f"{run['id']}  {run['status']}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title=title, expand=True)
    for column in _LIVE_COLUMNS:
        table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=1 if column == "result" else None)
    for step in run["steps"]:
        cells = dict(zip(STEP_COLUMNS, map(cell, step_row(step)), strict=True))
        spinner = Spinner("dots") if step["status"] in STEP_UNDER_WAY else ""
        table.add_row(spinner, *(cells[column] for column in _LIVE_COLUMNS[1:]))
    return table
