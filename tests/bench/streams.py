"""The memory that an idle client of the live stream costs a service with two thousand of them."""

import asyncio
import resource

from tests.bench.context import BenchContext
from tests.bench.databases import SQLITE
from tests.bench.prepared_requests import request
from tests.bench.processes import Service, ringback
from tests.bench.report import at_most

CONNECTIONS = 2_000
_WARM_UP = 100
"""Connections opened before memory is first measured: the first ones cause allocations that are made only once."""
_AT_ONCE = 100
_FIRST_COMMENT = b"from here on"
_REQUEST = request("GET", "/api/v1/events").replace(b"\r\n\r\n", b"\r\naccept: text/event-stream\r\n\r\n")

Reader = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def streams(context: BenchContext) -> None:
    """Measure the memory that idle streams need."""
    _raise_file_limit(CONNECTIONS + 500)
    for _ in context.runs("streams"):
        store = await context.databases.new(SQLITE)
        async with ringback(store) as service:
            each = await _kib_each(service)
        context.report.add("memory of an idle stream, one of 2,000, KiB", SQLITE, each, form="{:.1f}", aim=at_most(25))


async def _kib_each(service: Service) -> float:
    _close(await _follow(service.port, _WARM_UP))
    before = service.resident_mib()
    readers = await _follow(service.port, CONNECTIONS)
    grown = service.resident_mib() - before
    _close(readers)
    return grown * 1024 / CONNECTIONS


async def _follow(port: int, connections: int) -> list[Reader]:
    """Open streams; return them when each has received the first comment."""
    readers: list[Reader] = []
    while len(readers) < connections:
        some = min(_AT_ONCE, connections - len(readers))
        readers += await asyncio.gather(*(_open(port) for _ in range(some)))
    return readers


async def _open(port: int) -> Reader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_REQUEST)
    try:
        await reader.readuntil(_FIRST_COMMENT)
    except asyncio.IncompleteReadError as error:
        raise SystemExit(f"a stream did not begin; the response was: {error.partial.decode()}") from None
    return reader, writer


def _close(readers: list[Reader]) -> None:
    for _, writer in readers:
        writer.close()


def _raise_file_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
