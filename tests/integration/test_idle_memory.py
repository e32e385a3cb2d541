"""The memory that an idle client takes, a reader of the event stream or a long poll, measured with two thousand.

A long poll is one for one task or for several.
"""

import asyncio
import resource
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.world import API_KEY, ProcessWorld, in_processes

CLIENTS = 2000
WARM_UP = 100
"""Clients before the first measurement: the memory of the first ones is that of the program itself."""
AT_ONCE = 100
STREAMS, POLLS = "ringback_streams_open", "ringback_long_polls_waiting"
"""The metrics that count them."""
MOST_KIB = {"stream": 10, "one task": 12, "several tasks": 14}
READ_AGAIN = CLIENTS // 100
"""How many long polls may be reading their row again while they are counted."""

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.mark.sqlite_only("idle clients use no database")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", MOST_KIB)
async def test_two_thousand_idle_clients_take_little_memory(tmp_path: Path, kind: str) -> None:
    raise_file_limit()
    async with in_processes(tmp_path, key_rate="100000/s") as world:
        tasks = [await world.created({"pending_seconds": 600}) for _ in range(3)]
        request, metric = {
            "stream": (requested("/api/v1/events", "accept: text/event-stream\r\n"), STREAMS),
            "one task": (requested(f"/api/v1/tasks/{tasks[0]}?wait_for_completion=true&timeout_seconds=30"), POLLS),
            "several tasks": (posted("/api/v1/tasks/wait", {"task_ids": tasks, "timeout_seconds": 30}), POLLS),
        }[kind]
        await close(await waiting(world, request, metric, WARM_UP))
        before = resident_kib(world)
        clients = await waiting(world, request, metric, CLIENTS)
        grown = resident_kib(world) - before
        await close(clients)
    assert grown / CLIENTS <= MOST_KIB[kind]


def requested(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}x-api-key: {API_KEY}\r\n\r\n".encode()


def posted(path: str, body: dict[str, Any]) -> bytes:
    content = orjson.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {API_KEY}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def waiting(world: ProcessWorld, request: bytes, metric: str, count: int) -> list[Client]:
    """Send the request on `count` connections, some at once; return them when all wait. Raises TimeoutError."""
    clients: list[Client] = []
    async with asyncio.timeout(30):
        while len(clients) < count:
            clients += await asyncio.gather(*(sent(world, request) for _ in range(AT_ONCE)))
            while await counted(world, metric) < len(clients) - READ_AGAIN:
                pass
    return clients


async def sent(world: ProcessWorld, request: bytes) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(request)
    return reader, writer


async def counted(world: ProcessWorld, metric: str) -> float:
    families = text_string_to_metric_families((await world.api.get("/metrics")).text)
    return next(family.samples[0].value for family in families if family.name == metric)


async def close(clients: list[Client]) -> None:
    for _, writer in clients:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in clients))


def resident_kib(world: ProcessWorld) -> int:
    assert world.process is not None
    lines = Path(f"/proc/{world.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CLIENTS + 500
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
