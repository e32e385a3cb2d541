"""How a stream ends: its reader does not read, or the service stops, which ends long polls too."""

import asyncio
import socket
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.api import event_stream
from receiver.events import after_commit
from receiver.events.after_commit import Watch
from receiver.events.feed import Feed
from receiver.events.stream import Follower
from tests.fakes.inbound import report
from tests.fakes.reader import reading
from tests.fakes.world import API_KEY, World, in_processes

BY_HAND = {"outcome": "never", "webhook": "lost"}
LARGE = {"prompt": "a cat in the rain, " * 25_000}
REQUEST = (
    f"GET /api/v1/events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nx-api-key: {API_KEY}\r\n"
    "last-event-id: 0\r\n\r\n"
)
STOP_SECONDS = 5.0


async def reader_that_does_not_read(world: World) -> socket.socket:
    """Open the stream from its beginning and read nothing of it."""
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(stalled, ("127.0.0.1", world.port))
    await loop.sock_sendall(stalled, REQUEST.encode())
    return stalled


async def read_to_the_end(connected: socket.socket) -> None:
    """Read the rest of the stream."""
    while await asyncio.get_running_loop().sock_recv(connected, 1 << 20):
        pass


async def fill_socket_buffers(world: World) -> None:
    """Make events with more bytes than the socket buffers hold."""
    await asyncio.gather(*(world.created(BY_HAND, input=LARGE) for _ in range(12)))


async def open_streams(world: World) -> int:
    """Return the number of open streams, from the service's metrics."""
    lines = (await world.api.get("/metrics")).text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("ringback_streams_open "))))


async def test_a_reader_that_does_not_read_is_disconnected_and_the_others_continue(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_stream, "STALLED_SECONDS", 0.5)
    others = await open_streams(world)
    async with reading(world, event_types="task.cancelled") as good:
        await fill_socket_buffers(world)
        with await reader_that_does_not_read(world) as stalled:
            async with asyncio.timeout(10):
                while await open_streams(world) != others + 2:
                    pass
                while await open_streams(world) != others + 1:
                    pass
            with pytest.raises(ConnectionResetError):
                await read_to_the_end(stalled)
        task_id = await world.created({"pending_seconds": 60.0})
        await world.api.delete(f"/api/v1/task/{task_id}")
        assert (await good.until(lambda seen: seen))[0].task_id == task_id
    assert not caplog.records  # the server logs no error


async def test_a_stream_ends_with_its_client_whatever_body_the_request_has(world: World) -> None:
    others = await open_streams(world)
    body = b"x" * 300_000
    loop = asyncio.get_running_loop()
    with socket.socket() as connected:
        connected.setblocking(False)
        await loop.sock_connect(connected, ("127.0.0.1", world.port))
        head = REQUEST.replace("\r\n\r\n", f"\r\ncontent-length: {2 * len(body)}\r\n\r\n")
        await loop.sock_sendall(connected, head.encode() + body)
        async with asyncio.timeout(5):
            while await open_streams(world) != others + 1:
                pass
    async with asyncio.timeout(5):
        while await open_streams(world) != others:
            pass


async def test_a_stream_that_fails_unexpectedly_is_counted_and_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, others = await failures(world), await open_streams(world)
    async with reading(world) as reader:
        await reader.comment("from here on")

        async def fail(*_: Any) -> None:
            raise RuntimeError("no such thing should happen")

        monkeypatch.setattr(Follower, "read", fail)
        await world.created(BY_HAND)
        with pytest.raises((EOFError, httpx.RemoteProtocolError)):
            await reader.until(lambda _: False)
    assert await failures(world) == before + 1
    assert await open_streams(world) == others
    assert "no such thing should happen" in caplog.text


async def failures(world: World) -> float:
    """Return how many requests failed with an exception, from the service's metrics."""
    lines = (await world.api.get("/metrics")).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith('ringback_exceptions_total{place="request"'))


async def test_streams_and_long_polls_do_not_delay_the_stop(tmp_path: Path) -> None:
    async with in_processes(tmp_path) as world, AsyncExitStack() as stack:
        await fill_socket_buffers(world)
        task_id = await world.created(BY_HAND)
        readers = [await stack.enter_async_context(reading(world)) for _ in range(20)]
        stalled = stack.enter_context(await reader_that_does_not_read(world))
        poll = world.api.get(f"/api/v1/tasks/{task_id}?wait_for_completion=true&timeout_seconds=30")
        polling = asyncio.create_task(poll)
        while await open_streams(world) != 21:
            pass
        async with asyncio.timeout(STOP_SECONDS):
            status = await world.stop()
        for reader in readers:
            await reader.end()
        answer = await polling
        assert answer.status_code == 200
        assert answer.json()["data"]["status"] in ("pending", "processing")
        assert status == 0, world.log()
        assert "Traceback" not in world.log()
        assert stalled.fileno() >= 0


async def test_a_long_poll_is_woken_by_the_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_commit, "_REREAD_SECONDS", 3600.0)  # so that reading the row again does not find it
    loop = asyncio.get_running_loop()
    waiting, committed = asyncio.Event(), 0.0
    changed, publish = Watch.changed, Feed.publish

    async def wait(self: Watch, seconds: float) -> bool:
        waiting.set()
        return await changed(self, seconds)

    def note(self: Feed, events: Sequence[Any]) -> None:
        nonlocal committed
        if any(event.type == "task.completed" for _, event in events):
            committed = loop.time()
        publish(self, events)

    monkeypatch.setattr(Watch, "changed", wait)
    monkeypatch.setattr(Feed, "publish", note)
    delays = []
    for _ in range(10):
        task_id = await world.created(BY_HAND)
        waiting.clear()
        poll = world.api.get(f"/api/v1/tasks/{task_id}?wait_for_completion=true&timeout_seconds=30")
        polling = asyncio.create_task(poll)
        await waiting.wait()
        assert (await report(world, task_id, "completed", output={"image_url": "x"})).status_code == 200
        assert (await polling).json()["data"]["status"] == "completed"
        delays.append(loop.time() - committed)
    assert statistics.median(delays) < 0.05
