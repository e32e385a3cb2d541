"""`task create --bulk`: creates a task for each line of a file, up to a thousand with one request."""

import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from receiver.byte_order_marks import MOST_MARK_BYTES, encoding_of, without_mark
from receiver.cli.console import echo, print_json
from receiver.cli.failure import Failure, ServiceUnreachable, Status
from receiver.cli.progress import file_progress
from receiver.cli.service import OUTAGE_SECONDS, ServiceClient

MOST_TASKS = 1000
"""In one request; the API accepts no more."""
_MOST_BYTES = 8 * 1024 * 1024
"""In one request, of the lines themselves."""
_PAUSE_SECONDS = 1.0

NumberedTask = tuple[int, Any]
"""The number of a line, and the task that it describes."""
LineResult = dict[str, Any]
"""What became of a line: its number as `line`, and `task_id` or `error`."""


def create_bulk(client: ServiceClient, name: str, as_json: bool) -> None:
    """Create the tasks of the file `name` (`-`: standard input) and print their ids in the order of its lines.

    Lines that are refused are reported by their number. Raises `Failure` with status 1 if there are any; the tasks of
    all other lines are created nevertheless.
    """
    results: list[LineResult] = []
    with _opened(name) as file, file_progress(file, "creating tasks", as_json) as advance:
        try:
            for result in _results(client, _lines(file), advance):
                results.append(result)
                if not as_json:
                    _print(result)
        finally:  # tasks that were created before something went wrong are printed too
            if as_json:
                print_json({"object": "list", "data": results})
    refused = sum("error" in result for result in results)
    if refused:
        raise Failure(Status.TASK_FAILED, f"{refused} of {len(results)} lines were refused")


def _results(client: ServiceClient, file: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[LineResult]:
    has_answered = False
    for batch in _batches(file, advance):
        tasks = [line for line in batch if not isinstance(line, dict)]
        answers = iter(_send(client, [task for _, task in tasks], retry=has_answered) if tasks else ())
        has_answered = has_answered or bool(tasks)
        for line in batch:
            yield line if isinstance(line, dict) else _result(line[0], next(answers))


def _batches(file: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[list[NumberedTask | LineResult]]:
    """Return the lines in batches, one for each request. A line that is not JSON is a result already: refused."""
    batch: list[NumberedTask | LineResult] = []
    size = 0
    for number, text in enumerate(file, 1):
        advance(len(text))
        if not text.strip():
            continue
        if batch and (len(batch) == MOST_TASKS or size + len(text) > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(_parse(number, text))
        size += len(text)
    if batch:
        yield batch


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file in UTF-8, whatever its byte order mark says that it is written in."""
    start = file.read(MOST_MARK_BYTES)
    rest = file.readline() if encoding_of(start) in (None, "utf-8") else file.read()
    yield from BytesIO(without_mark(start + rest))
    yield from file


def _parse(number: int, text: bytes) -> NumberedTask | LineResult:
    try:
        # Files that were joined have a mark at the beginning of each.
        return number, orjson.loads(without_mark(text))
    except orjson.JSONDecodeError as error:
        return {"line": number, "error": {"code": "invalid_json", "message": f"is not JSON: {error}"}}


def _send(client: ServiceClient, tasks: list[Any], *, retry: bool) -> list[dict[str, Any]]:
    """Send one request. With `retry`, repeat it while the service is unreachable, for `OUTAGE_SECONDS` at most.

    Its idempotency key stays the same, so a repeated request creates no task twice.
    """
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    give_up_at = time.monotonic() + (OUTAGE_SECONDS if retry else 0)
    while True:
        try:
            answer = client.call("POST", "/api/v1/tasks", body={"tasks": tasks}, headers=headers)
        except ServiceUnreachable:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return list(answer["data"])


def _result(number: int, answer: dict[str, Any]) -> LineResult:
    return {"line": number, **{name: value for name, value in answer.items() if name != "index"}}


def _print(result: LineResult) -> None:
    error = result.get("error")
    if error is None:
        echo(result["task_id"])
    else:
        field = f"{error['param']}: " if "param" in error else ""
        echo(f"ringback: line {result['line']}: {field}{error['message']}", err=True)


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise Failure(Status.USAGE, f"--bulk {name}: {error.strerror}") from None
