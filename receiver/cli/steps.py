"""Runs as people read them: the run's fields, and its steps as a table, which is alive while they are waited for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from receiver.cli.console import cell, print_fields, print_table, watched

if TYPE_CHECKING:
    from rich.table import Table

RunDocument = dict[str, Any]
OnRunChange = Callable[[RunDocument], None]

_COLUMNS = ("step", "action", "status", "took", "task", "result")
_LIVE_COLUMNS = ("", "step", "action", "status", "took", "result")
"""What has room in one line of a terminal."""


def print_run(run: Mapping[str, Any]) -> None:
    """Print one run: a field a line, and a row a step."""
    print_fields(
        [
            ("run", run.get("id")),
            ("status", run.get("status")),
            ("created", _moment(run.get("created_at"))),
            ("updated", _moment(run.get("updated_at"))),
            ("metadata", run.get("metadata")),
        ]
    )
    steps = run.get("steps") or []
    if steps:
        typer.echo()
        print_table(_COLUMNS, map(_row, steps))


@contextmanager
def live_steps(as_json: bool) -> Iterator[OnRunChange]:
    """Show a run's steps while they are waited for, if a person watches."""
    if not watched(as_json):
        yield lambda _run: None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=8) as live:
        yield lambda run: live.update(_table(run))


def _table(run: RunDocument) -> "Table":
    from rich import box
    from rich.spinner import Spinner
    from rich.table import Table

    title = f"{run['id']}  {run['status']}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title=title, expand=True)
    for column in _LIVE_COLUMNS:
        table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=1 if column == "result" else None)
    for step in run["steps"]:
        is_under_way = step["status"] in ("queued", "processing")
        shown = dict(zip(_COLUMNS, map(cell, _row(step)), strict=True))
        table.add_row(Spinner("dots") if is_under_way else "", *(shown[column] for column in _LIVE_COLUMNS[1:]))
    return table


def _row(step: Mapping[str, Any]) -> Sequence[Any]:
    return (step["id"], step["action"], step["status"], _took(step), step["job_id"], _outcome(step))


def _outcome(step: Mapping[str, Any]) -> Any:
    error, result = step.get("error") or {}, step.get("result") or {}
    return error.get("message") or error.get("code") or result.get("result_url")


def _took(step: Mapping[str, Any]) -> str | None:
    began, ended = step.get("started_at"), step.get("completed_at")
    if began is None:
        return None
    return f"{max(0, int((ended or datetime.now(UTC).timestamp()) - began))} s"


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
