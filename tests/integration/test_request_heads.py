"""Bounds on what arrives before the application has a request: nothing that a client sends fills the memory."""

import asyncio
import sys
import time
from collections import Counter
from types import FrameType

import pytest

from tests.fakes.front_door import FrontDoor, front_door
from tests.fakes.raw_client import raw_connection

pytestmark = pytest.mark.no_database("the server alone")

BLOCK = 16 * 1024
MOST = 65_536
START = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

ENDLESS = {
    "an endless URL": (b"GET /", b"a" * BLOCK, 414),
    "an endless query": (b"GET /?", b"a=b&" * (BLOCK // 4), 414),
    "an endless method": (b"", b"G" * BLOCK, 400),
    "an endless header value": (START + b"X: ", b"a" * BLOCK, 431),
    "an endless header name": (START, b"a" * BLOCK, 431),
    "endless headers": (START, b"X-Header: some value of a header\r\n" * 20, 431),
    "endless headers without a value": (START, b"a:\r\n" * (BLOCK // 4), 431),
    "endless blanks in a header value": (START + b"X:", b" " * BLOCK, 431),
    "endless blank lines before a request": (b"", b"\r\n" * (BLOCK // 2), 431),
    "an endless chunk extension": (CHUNKED + b"5;", b"a=b;" * (BLOCK // 4), 431),
    "an endless chunk size": (CHUNKED, b"0" * BLOCK, 431),
    "an endless trailer field": (CHUNKED + b"1\r\na\r\n0\r\nX: ", b"a" * BLOCK, 431),
    "endless trailer fields": (CHUNKED + b"1\r\na\r\n0\r\n", b"X-Trailer: a\r\n" * 50, 431),
    "chunks of one byte with long extensions": (CHUNKED, b"1;%s\r\na\r\n" % (b"a" * 8000), 431),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_what_never_ends_is_refused_with_at_most_64_kb_held(what: str) -> None:
    start, more, status = ENDLESS[what]
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(start)
        most = 0
        for _ in range(4096):
            await client.send(more)
            most = max(most, door.held)
            if client.reader.at_eof() or client.reader._buffer:  # type: ignore[attr-defined]
                break
        else:
            pytest.fail("the server took 64 MB")
        answered, headers, _ = await client.answer()
        assert (answered, headers["connection"]) == (status, "close")
        assert await client.ended() == b""
        assert most <= MOST
        assert door.bodies == []


@pytest.mark.parametrize("step", [1 << 20, 4096])
async def test_a_head_of_64_kb_passes_and_one_byte_more_does_not(step: int) -> None:
    room = MOST - len(START) - len(b"X: \r\n\r\n")
    async with front_door() as door:
        for size, status in ((room, 200), (room + 1, 431), (room + 500_000, 431)):
            async with raw_connection(door.url) as client:
                head = START + b"X: " + b"a" * size + b"\r\n\r\n"
                for at in range(0, len(head), step):
                    await client.send(head[at : at + step])
                assert (await client.answer())[0] == status


async def test_a_hundred_fields_pass_and_one_more_does_not() -> None:
    async with front_door() as door:
        for fields, status in ((99, 200), (100, 431)):
            async with raw_connection(door.url) as client:
                await client.send(START + b"A: b\r\n" * fields + b"\r\n")
                assert (await client.answer())[0] == status


async def test_a_request_whose_length_has_thousands_of_digits_is_refused_and_not_begun() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: %s5\r\n\r\nhello" % (b"0" * 5000))
        assert (await client.answer())[0] == 400
        assert await client.ended() == b""
        assert door.requests == []


async def test_a_trailer_field_does_not_become_a_header() -> None:
    seen: list[bytes] = []

    class Door(FrontDoor):
        async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await super().__call__(scope, receive, send)
            if scope["type"] == "http":
                seen.extend(name for name, _ in scope["headers"])

    from tests.fakes.servers import served

    async with served(Door()) as url, raw_connection(url) as client:
        await client.send(CHUNKED + b"1\r\na\r\n0\r\nX-API-Key: stolen\r\n\r\n")
        assert (await client.answer())[0] == 200
    assert b"transfer-encoding" in seen
    assert b"x-api-key" not in seen


async def test_chunks_of_one_byte_cost_no_call_each() -> None:
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    async with front_door() as door, raw_connection(door.url) as client:
        sys.setprofile(count)
        try:
            await client.send(CHUNKED + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")
            assert (await client.answer())[2] == b"20000"
        finally:
            sys.setprofile(None)
    assert {name: number for name, number in calls.items() if number > 1000} == {}


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"20000\r\n" + b"\r\n" * (1 << 16) + b"\r\n0\r\n\r\n",
        CHUNKED + b"2;a\r\n\r\n\r\n" * 10_000 + b"0\r\n\r\n",
        b"\r\n" * 32_000 + START + b"\r\n",
    ],
    ids=["blank lines in a chunk", "blank lines in small chunks", "blank lines before a request"],
)
async def test_what_looks_like_many_ends_of_a_request_does_not_hold_the_loop(data: bytes) -> None:
    turns: list[float] = []

    async def watch() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.append(now - before)
            before = now

    async with front_door() as door, raw_connection(door.url) as client:
        watching = asyncio.create_task(watch())
        client.writer.write(data)
        assert (await client.answer())[0] == 200
        watching.cancel()
    assert max(turns) < 0.1


async def test_the_rest_of_a_body_in_chunks_is_not_read_when_it_is_answered_already() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(CHUNKED.replace(b"/body", b"/unread") + b"1\r\na\r\n")
        assert (await client.answer())[0] == 401
        client.writer.write(b"1\r\na\r\n" * 100_000)
        assert await client.ended() == b""


async def test_pipelined_requests_are_answered_in_order_with_their_bodies() -> None:
    requests = b"".join(
        (
            b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nab\r\n\r\ncd\r\n\r",
            CHUNKED + b"6\r\nx\r\n\r\nx\r\n3;a=b\r\n\r\n\r\r\n0\r\nTrailer: a\r\n\r\n",
            b"\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\n\r\n",
        )
    )
    async with front_door() as door:
        for step in (len(requests), 7, 1):
            async with raw_connection(door.url) as client:
                for at in range(0, len(requests), step):
                    await client.send(requests[at : at + step])
                assert [(await client.answer())[2] for _ in range(4)] == [b"/first", b"11", b"9", b"/last"]


@pytest.mark.parametrize(
    "head", [b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
)
async def test_requests_behind_a_slow_one_are_not_held_without_end(head: bytes) -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await door.waiting.wait()
        client.writer.write(head * (16_000_000 // len(head)))
        async with asyncio.timeout(10):
            while door.held < MOST:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
        for _ in range(20):  # time to read more, if it would
            await asyncio.sleep(0.01)
            assert door.held <= MOST + 256 * 1024
        assert door.requests == ["/wait"]
        assert client.writer.transport.get_write_buffer_size() > 1_000_000
        door.gate.set()
        assert (await client.answer())[2] == b"waited"


async def test_a_request_behind_a_long_poll_does_not_hide_the_end_of_the_connection() -> None:
    async with front_door() as door:
        async with raw_connection(door.url) as client:
            await client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await door.waiting.wait()
            await client.send(START + b"\r\n")
        async with asyncio.timeout(10):
            assert await door.disconnects.get() == "/wait"


async def test_what_still_arrives_after_a_refusal_is_discarded_so_that_the_answer_is_read() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(START + b"X: " + b"a" * 6_000_000)
        assert (await client.answer())[0] == 431


async def test_an_answer_that_comes_before_the_body_is_read_although_it_ends_the_connection() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(b"POST /closing HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + bytes(3_000_000))
        assert (await client.answer())[0] == 413
        assert await client.ended() == b""


async def test_an_answer_that_comes_before_the_body_says_that_it_ends_the_connection() -> None:
    """A proxy may send no more of that body, and on a connection that stays open the next request instead."""
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        await client.send(b"b")
        assert "connection" not in (await client.answer())[1]
        await client.send(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + bytes(1000))
        _, headers, _ = await client.answer()
        assert headers["connection"] == "close"
        assert await client.ended() == b""
