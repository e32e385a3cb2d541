"""How a response is sent: its head and the first part of its body in one packet, whatever came of the request."""

import socket
import struct
import sys

import pytest

from tests.fakes.front_door import front_door
from tests.fakes.raw_client import RawConnection, raw_connection

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
