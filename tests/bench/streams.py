"""The memory that an idle client costs a service with thousands of them: of the live stream, and of long polls.

`streams` measures two thousand of each, `many_streams` ten thousand streams.
"""

import asyncio
import re
import resource

from tests.bench.context import BenchContext
from tests.bench.databases import SQLITE
from tests.bench.prepared_requests import request
from tests.bench.processes import Service, ringback
from tests.bench.report import at_most
from tests.bench.seed_rows import add_pending_tasks, task_id

_CONNECTIONS, _MANY = 2_000, 10_000
_WARM_UP = 100
"""Connections opened before memory is first measured: the first ones cause allocations that are made only once."""
_AT_ONCE = 100
_OTHER_FILES = 500
_FIRST_COMMENT = b"from here on"
_STREAM = request("GET", "/api/v1/events").replace(b"\r\n\r\n", b"\r\naccept: text/event-stream\r\n\r\n")
_LONG_POLL = request("GET", f"/api/v1/tasks/{task_id(1)}?wait_for_completion=true&timeout_seconds=30")
_WAIT_FOR_TASKS = request(
    "POST", "/api/v1/tasks/wait", {"task_ids": [task_id(number) for number in (1, 2, 3)], "timeout_seconds": 30}
)
_LONG_POLLS_WAIT = re.compile(rb"^ringback_long_polls_waiting (.+)$", re.MULTILINE)
_READ_AGAIN = 0.01
"""This part of the long polls may be reading its row again while they are counted."""
_AIM = at_most(12)

Reader = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def streams(context: BenchContext) -> None:
    """Measure the memory that idle streams and idle long polls need, those for one task and for several."""
    _raise_file_limit(_CONNECTIONS)
    for _ in context.runs("streams"):
        for what, content in (
            ("stream", _STREAM),
            ("long poll", _LONG_POLL),
            ("wait for three tasks", _WAIT_FOR_TASKS),
        ):
            store = await context.databases.new(SQLITE)
            add_pending_tasks(store, 3)
            async with ringback(store) as service:
                each = await _kib_each(service, content, _CONNECTIONS)
            name = f"memory of an idle {what}, one of {_CONNECTIONS:,}, KiB"
            context.report.add(name, SQLITE, each, form="{:.1f}", aim=_AIM)


async def many_streams(context: BenchContext) -> None:
    """Measure the memory that ten thousand idle streams of one process need."""
    name = f"memory of an idle stream, one of {_MANY:,}, KiB"
    if (most := _raise_file_limit(_MANY)) < _MANY:
        context.report.note(name, SQLITE, f"the limit on open files allows {most:,}", aim=_AIM)
        return
    store = await context.databases.new(SQLITE)
    async with ringback(store, {"max_connections": str(_MANY + _OTHER_FILES)}) as service:
        context.report.add(name, SQLITE, await _kib_each(service, _STREAM, _MANY), form="{:.1f}", aim=_AIM)


async def _kib_each(service: Service, content: bytes, connections: int) -> float:
    """Open connections that wait; return the memory that one needs, in KiB."""
    _close(await _begin(service, content, _WARM_UP))
    before = service.resident_mib()
    waiting = await _begin(service, content, connections)
    grown = service.resident_mib() - before
    _close(waiting)
    return grown * 1024 / connections


async def _begin(service: Service, content: bytes, connections: int) -> list[Reader]:
    """Open connections; return them when the service has nothing to do for any of them."""
    readers: list[Reader] = []
    while len(readers) < connections:
        some = min(_AT_ONCE, connections - len(readers))
        readers += await asyncio.gather(*(_open(service.port, content) for _ in range(some)))
        while content is not _STREAM and await _long_polls(service) < len(readers) - _READ_AGAIN * connections:
            pass  # all at once would be measured with what their requests need until they wait
    return readers


async def _long_polls(service: Service) -> float:
    _, metrics = await service.exchange("GET", "/metrics")
    found = _LONG_POLLS_WAIT.search(metrics)
    return float(found[1]) if found else 0.0


async def _open(port: int, content: bytes) -> Reader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    if content is _STREAM:
        try:
            await reader.readuntil(_FIRST_COMMENT)
        except asyncio.IncompleteReadError as error:
            raise SystemExit(f"a stream did not begin; the response was: {error.partial.decode()}") from None
    return reader, writer


def _close(readers: list[Reader]) -> None:
    for _, writer in readers:
        writer.close()


def _raise_file_limit(connections: int) -> int:
    """Raise the limit on open files for these connections; return how many it allows. Services inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else soft - _OTHER_FILES
