"""`task create --bulk`: a task for each line of a file, a thousand a call. What is refused is named by its line."""

import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import typer

from receiver.cli.console import print_json, watched
from receiver.cli.failure import Failure, ServiceUnreachable, Status
from receiver.cli.service import ServiceClient

MOST_A_CALL = 1000
_BYTES_A_CALL = 8 * 1024 * 1024
_PATIENCE_SECONDS = 60.0
"""How long a service that was there may be gone, or full."""
_PAUSE_SECONDS = 1.0

InputLine = dict[str, Any]
"""What became of a line: its number as `line`, and `task_id` or `error`."""
NumberedTask = tuple[int, Any]
"""A line's number, and what it says."""


def create_bulk(client: ServiceClient, name: str, as_json: bool) -> None:
    """Create the tasks of the file `name` (`-`: standard input) and print their ids, in its order.

    Raises `Failure` with the status 1 if lines were refused; all others are created all the same.
    """
    lines: list[InputLine] = []
    with _opened(name) as file, _bar(file, as_json) as advance:
        try:
            for line in _created(client, file, advance):
                lines.append(line)
                if not as_json:
                    _print(line)
        finally:  # also what was created before something went wrong
            if as_json:
                print_json({"object": "list", "data": lines})
    refused = sum("error" in line for line in lines)
    if refused:
        raise Failure(Status.TASK_FAILED, f"{refused} of {len(lines)} lines were refused")


def _created(client: ServiceClient, file: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[InputLine]:
    patient = False
    for call in _calls(file, advance):
        tasks = [task for task in call if not isinstance(task, dict)]
        answers = iter(_send(client, [said for _, said in tasks], patient=patient) if tasks else ())
        patient = patient or bool(tasks)
        for task in call:
            yield task if isinstance(task, dict) else _line(task[0], next(answers))


def _calls(file: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[list[NumberedTask | InputLine]]:
    """Return the lines in portions for one call each; those that are no JSON are refused already."""
    portion: list[NumberedTask | InputLine] = []
    size = 0
    for number, text in enumerate(file, 1):
        advance(len(text))
        if not text.strip():
            continue
        if portion and (len(portion) == MOST_A_CALL or size + len(text) > _BYTES_A_CALL):
            yield portion
            portion, size = [], 0
        portion.append(_read(number, text))
        size += len(text)
    if portion:
        yield portion


def _read(number: int, text: bytes) -> NumberedTask | InputLine:
    try:
        return number, orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return {"line": number, "error": {"code": "invalid_json", "message": f"is not JSON: {error}"}}


def _send(client: ServiceClient, tasks: list[Any], *, patient: bool) -> list[dict[str, Any]]:
    """Make one call; its key lets it be made again without creating anything twice."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    give_up = time.monotonic() + (_PATIENCE_SECONDS if patient else 0)
    while True:
        try:
            answer = client.call("POST", "/api/v1/tasks", body={"tasks": tasks}, headers=headers)
        except ServiceUnreachable:
            if time.monotonic() >= give_up:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return list(answer["data"])


def _line(number: int, answer: dict[str, Any]) -> InputLine:
    return {"line": number, **{name: value for name, value in answer.items() if name != "index"}}


def _print(line: InputLine) -> None:
    error = line.get("error")
    if error is None:
        typer.echo(line["task_id"])
    else:
        where = f"{error['param']}: " if "param" in error else ""
        typer.echo(f"ringback: line {line['line']}: {where}{error['message']}", err=True)


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise Failure(Status.USAGE, f"--bulk {name}: {error.strerror}") from None


@contextmanager
def _bar(file: BinaryIO, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show how much of the file is done, if a person watches."""
    if not watched(as_json):
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import Progress

    total = file.seek(0, 2) if file.seekable() else None
    if total is not None:
        file.seek(0)
    # Where the ids go to a file they must not be drawn into the display.
    to_terminal = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=to_terminal) as progress:
        bar = progress.add_task("creating tasks", total=total)
        yield lambda size: progress.advance(bar, size)
