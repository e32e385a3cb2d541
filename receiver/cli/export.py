"""`ringback task export`: every task of a filter as JSON lines or CSV, page by page.

The list is read by a cursor from the newest task at the start to the oldest: tasks that are created meanwhile come
before all of that, so none is missing and none is twice. A page whose answer was lost is asked for again with the same
cursor.
"""

import csv
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson

from receiver.cli.console import json_line, print_raw
from receiver.cli.failure import Failure, ServiceUnreachable, Status
from receiver.cli.inputs import without_none
from receiver.cli.service import OUTAGE_SECONDS, ServiceClient
from receiver.cli.show import result_url
from receiver.printable import printable, printable_json
from receiver.private_files import open_private

_PAGE_SIZE = 200
_PAUSE_SECONDS = 1.0
_FIRST_OF_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With these a spreadsheet takes a cell for a formula, which may send other cells elsewhere."""

TaskFields = Mapping[str, Any]
"""A task as `GET /api/v1/tasks` lists it."""


class _Pages(Protocol):
    def call(self, method: str, path: str, *, params: Mapping[str, Any] | None = None) -> Any: ...


def export(
    client: ServiceClient, filters: Mapping[str, Any], form: str, file: Path | None, on_tasks: Callable[[int], None]
) -> int:
    """Write all tasks that match into a file, or None: to stdout; return how many.

    `on_tasks` is called with the number of each page. Raises `Failure`; then no file has the name.
    """
    count = 0
    with _target(file) as write:
        if form == "csv":
            write(_csv_row(COLUMNS))
        for page in pages(client, filters):
            write("".join(map(_FORMS[form], page)))
            count += len(page)
            on_tasks(len(page))
    return count


def pages(client: _Pages, filters: Mapping[str, Any]) -> Iterator[list[TaskFields]]:
    """Yield the tasks that match, page by page. A service that has answered may be away for a while, as it restarts."""
    wanted: dict[str, Any] = {**without_none(filters), "limit": _PAGE_SIZE}
    has_answered = False
    while True:
        page = _page(client, wanted, retry=has_answered)
        has_answered = True
        if page["data"]:
            yield page["data"]
        if not (page.get("has_more") and page.get("next_cursor")):
            return
        wanted["cursor"] = page["next_cursor"]


def _page(client: _Pages, wanted: Mapping[str, Any], *, retry: bool) -> Any:
    give_up_at = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return client.call("GET", "/api/v1/tasks", params=wanted)
        except ServiceUnreachable:
            if not retry or time.monotonic() > give_up_at:
                raise
            time.sleep(_PAUSE_SECONDS)


@contextmanager
def _target(file: Path | None) -> Iterator[Callable[[str], object]]:
    """Open what is written to. A file gets its name when all is in it and on disk, and none if something goes wrong."""
    if file is None:
        yield print_raw
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(open_private(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", newline="") as opened:
            yield opened.write
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        raise Failure(Status.USAGE, f"{file} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _error(task: TaskFields, name: str) -> Any:
    return (task.get("error") or {}).get(name)


def _document(value: Any) -> str:
    return printable_json(orjson.dumps(value).decode()) if value else ""


_CELLS: dict[str, Callable[[TaskFields], Any]] = {
    **{
        name: lambda task, name=name: task.get(name)  # type: ignore[misc]
        for name in (
            *("task_id", "status", "model", "task_type", "provider", "provider_task_id", "attempt", "progress"),
            *("run_id", "step", "created_at", "started_at", "ended_at"),
        )
    },
    "result_url": result_url,
    "error_code": lambda task: _error(task, "code"),
    "error_message": lambda task: _error(task, "message"),
    "metadata": lambda task: _document(task.get("metadata")),
    "input": lambda task: _document(task.get("input")),
    "output": lambda task: _document(task.get("output")),
}
COLUMNS = tuple(_CELLS)
"""The columns of a CSV file, which its first line names. The last three have JSON."""


def _csv_line(task: TaskFields) -> str:
    return _csv_row([_cell(read(task)) for read in _CELLS.values()])


def _cell(value: Any) -> Any:
    """Return the value of a cell: one line, and never a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(_FIRST_OF_A_FORMULA) else text


def _csv_row(cells: Any) -> str:
    row = io.StringIO()
    csv.writer(row).writerow(cells)
    return row.getvalue()


_FORMS: dict[str, Callable[[TaskFields], str]] = {"jsonl": json_line, "csv": _csv_line}
