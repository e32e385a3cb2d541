"""The memory that an idle reader of the event stream takes, measured with two thousand readers."""

import asyncio
import resource
import sys
from pathlib import Path

import pytest

from tests.fakes.world import API_KEY, ProcessWorld, in_processes

READERS = 2000
MOST_KIB_EACH = 13
WARM_UP = 100
"""Readers before the first measurement: the memory of the first ones is that of the program itself."""
AT_ONCE = 100
REQUEST = (
    f"GET /api/v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\nx-api-key: {API_KEY}\r\n\r\n"
).encode()

Reader = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.mark.sqlite_only("idle readers use no database")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_two_thousand_idle_readers_take_little_memory(tmp_path: Path) -> None:
    raise_file_limit()
    async with in_processes(tmp_path, key_rate="100000/s") as world:
        await close(await follow(world, WARM_UP))
        before = resident_kib(world)
        readers = await follow(world, READERS)
        grown = resident_kib(world) - before
        await close(readers)
    assert grown / READERS <= MOST_KIB_EACH


async def follow(world: ProcessWorld, count: int) -> list[Reader]:
    """Open streams; return when each has received its first comment."""
    readers: list[Reader] = []
    while len(readers) < count:
        readers += await asyncio.gather(*(opened(world) for _ in range(AT_ONCE)))
    return readers


async def opened(world: ProcessWorld) -> Reader:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(REQUEST)
    await reader.readuntil(b"from here on")
    return reader, writer


async def close(readers: list[Reader]) -> None:
    for _, writer in readers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in readers))


def resident_kib(world: ProcessWorld) -> int:
    assert world.process is not None
    lines = Path(f"/proc/{world.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = READERS + 500
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
