"""How a response is sent: its head and the first part of its body in one packet, whatever came of the request."""

import asyncio
import gc
import socket
import struct
import sys

import pytest
from starlette.types import Receive, Scope, Send

from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.connections import Connections
from tests.fakes.front_door import front_door, no_lifespan
from tests.fakes.raw_client import RawConnection, raw_connection
from tests.fakes.servers import served

pytestmark = pytest.mark.no_database("the server alone")

_DATA_SEGMENTS_IN = 152
"""Where Linux has `tcpi_data_segs_in` in its `struct tcp_info`: the packets with data that arrived."""


def _packets_received(client: RawConnection) -> int:
    connected = client.writer.get_extra_info("socket")
    info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (packets,) = struct.unpack_from("I", info, _DATA_SEGMENTS_IN)
    return int(packets)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the packets of a connection")
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /some HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        b"GET /some HTTP/1.0\r\nHost: a\r\n\r\n",
        b"HEAD /some HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_a_small_response_is_one_packet(request_bytes: bytes) -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(request_bytes)
        assert b" 200 OK\r\n" in await client.reader.readuntil(b"\r\n\r\n")
        assert _packets_received(client) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the packets of a connection")
async def test_the_response_to_a_request_in_two_packets_is_one() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        await client.send(b"b")
        assert (await client.answer())[2] == b"2"
        assert _packets_received(client) == 1


async def test_who_waits_for_100_continue_is_told_before_the_response() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"ab")
        assert (await client.answer())[2] == b"2"


@pytest.mark.parametrize("rest", [b"", b"Content-Length: 8000000\r\n"])
async def test_a_response_that_breaks_off_before_its_body_has_its_head(rest: bytes) -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(b"POST /broken HTTP/1.1\r\nHost: a\r\n" + rest + b"\r\n" + b"a" * bool(rest))
        sent = await client.ended()
        assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
        assert sent.endswith(b"\r\n\r\n")


async def test_responses_to_head_and_get_follow_each_other_on_one_connection() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        for _ in range(3):
            await client.send(b"HEAD /some HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"content-length: 5\r\n" in await client.reader.readuntil(b"\r\n\r\n")
            await client.send(b"GET /some HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer())[2] == b"/some"


@pytest.mark.parametrize("what", ["answered early", "client gone", "client gone within its body"])
async def test_no_error_is_left_when_an_application_fails_after_its_head(what: str) -> None:
    unhandled: list[str] = []
    begun, gone = asyncio.Event(), asyncio.Event()

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await no_lifespan(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        if what == "answered early":
            await send({"type": "http.response.body", "body": b"no"})
        begun.set()
        await gone.wait()
        raise ValueError("a bug")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
    body = b"Content-Length: 0\r\n\r\n" if what == "client gone" else b"Content-Length: 9\r\n\r\nab"
    states: list[Connections] = []
    async with served(fail, limits=ConnectionLimits(), state=states.append) as url:
        async with raw_connection(url) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + body)
            async with asyncio.timeout(10):
                await begun.wait()
            if what == "answered early":
                assert (await client.answer())[2] == b"no"
        async with asyncio.timeout(10):
            while states[0].connections:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
        gone.set()
        async with asyncio.timeout(10):
            while states[0].tasks:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
        gc.collect()
    assert unhandled == []
