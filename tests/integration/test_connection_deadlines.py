"""Deadlines on what a client sends and reads; slow clients that are honest keep their connections."""

import asyncio
import socket

import pytest

from receiver.serving import connections as connections_module
from receiver.telemetry.metrics import connections_refused
from tests.fakes.front_door import SHORT, FrontDoor, front_door
from tests.fakes.raw_client import RawConnection, raw_connection

pytestmark = pytest.mark.no_database("the server alone")

GET = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"
HALF = GET[:-2]
POST = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

STALLED = {
    "nothing": (b"", b""),
    "blank lines alone": (b"\r\n", b"408"),
    "half a request line": (b"GE", b"408"),
    "half a head": (HALF, b"408"),
    "no body": (POST % 10, b"408"),
    "half a body": (POST % 10 + b"half", b"408"),
    "a body in chunks without an end": (CHUNKED + b"4\r\nhalf\r\n", b"408"),
    "half a chunk size": (CHUNKED + b"4", b"408"),
    "half a trailer": (CHUNKED + b"1\r\na\r\n0\r\nX: y\r\n", b"408"),
    "half a second request": (GET + HALF, b"408"),
    "no body that the answer did not wait for": (b"POST /unread HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"401"),
}
SLOW = {
    "a head": (HALF, b"A: b\r\n", b"408"),
    "blank lines": (b"", b"\r\n", b"408"),
    "a body": (POST % 10_000, b"a", b"408"),
    "chunks": (CHUNKED, b"1\r\na\r\n", b"408"),
    "a chunk extension": (CHUNKED + b"1;", b"a", b"408"),
}


def refused(reason: str) -> float:
    return connections_refused.labels(reason)._value.get()  # type: ignore[no-any-return]


def last_status(received: bytes) -> bytes:
    return received.rpartition(b"HTTP/1.1 ")[2][:3]


async def gives_up(door: FrontDoor, client: RawConnection, part: bytes) -> bytes:
    """Send `part` again and again, slowly, until the server ends the connection; return what it answered."""

    async def send() -> None:
        while True:
            await client.send(part)
            await asyncio.sleep(0.02)

    sending = asyncio.create_task(send())
    try:
        return await client.ended()
    finally:
        sending.cancel()


async def test_a_client_that_stops_in_the_middle_is_disconnected_with_an_answer_where_one_is_due() -> None:
    async def stop(door: FrontDoor, what: str) -> None:
        sent, status = STALLED[what]
        async with raw_connection(door.url) as client:
            await client.send(sent)
            assert last_status(await client.ended()) == status, what

    async with front_door(**SHORT) as door:
        await asyncio.gather(*(stop(door, what) for what in STALLED))
        assert door.bodies == []
    assert await door.disconnects.get() == "client_gone"  # the application did not wait for the rest of a body


async def test_a_client_that_sends_a_byte_now_and_then_is_disconnected() -> None:
    async def trickle(door: FrontDoor, what: str) -> None:
        start, part, status = SLOW[what]
        async with raw_connection(door.url) as client:
            await client.send(start)
            assert last_status(await gives_up(door, client, part)) == status, what

    late = refused("headers late"), refused("body late")
    async with front_door(**SHORT) as door:
        await asyncio.gather(*(trickle(door, what) for what in SLOW))
    assert (refused("headers late") - late[0], refused("body late") - late[1]) == (2, 3)


async def test_a_body_that_keeps_to_the_least_rate_passes_although_it_takes_longer() -> None:
    part, parts = b"a" * 2000, 20
    async with front_door(**SHORT, least_rate=10_000) as door, raw_connection(door.url) as client:
        await client.send(POST % (len(part) * parts))
        began = asyncio.get_running_loop().time()
        for _ in range(parts):
            await client.send(part)
            await asyncio.sleep(0.05)
        assert await client.answer() == (200, {"content-length": "5"} | (await headers_of(door)), b"40000")
        assert asyncio.get_running_loop().time() - began > 2 * SHORT["body_seconds"]


async def headers_of(door: FrontDoor) -> dict[str, str]:
    async with raw_connection(door.url) as client:
        await client.send(GET)
        return {name: value for name, value in (await client.answer())[1].items() if name != "content-length"}


async def test_the_time_in_which_the_application_does_not_take_the_body_is_not_the_client_s() -> None:
    async with front_door(**SHORT) as door, raw_connection(door.url) as client:
        body = bytes(900_000)
        sending = asyncio.create_task(client.send(b"POST /late HTTP/1.1\r\nContent-Length: 900000\r\n\r\n" + body))
        await asyncio.sleep(2 * SHORT["body_seconds"])
        door.gate.set()
        assert (await client.answer())[2] == b"900000"
        await sending


async def test_a_client_that_waits_for_100_continue_may_wait_for_the_application() -> None:
    async with front_door(**SHORT) as door, raw_connection(door.url) as client:
        await client.send(b"POST /late HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        await asyncio.sleep(2 * SHORT["body_seconds"])
        door.gate.set()
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert (await client.answer())[2] == b"4"


async def test_a_long_poll_and_a_stream_with_nothing_to_send_are_not_touched() -> None:
    async with front_door(**SHORT) as door, raw_connection(door.url) as client:
        await client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(2 * SHORT["keepalive_seconds"])
        door.gate.set()
        assert (await client.answer())[2] == b"waited"


async def test_a_connection_is_kept_for_its_time_and_used_again() -> None:
    async with front_door(**SHORT | {"keepalive_seconds": 0.8}) as door, raw_connection(door.url) as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer())[0] == 200
            await asyncio.sleep(0.4)  # longer than the first byte of a connection may take
        assert await client.ended() == b""  # and closed without an answer that could be taken for the next one


async def test_a_few_blank_lines_behind_a_body_begin_no_request_and_many_do() -> None:
    async def stray(door: FrontDoor, *blanks: bytes, ends: bytes) -> None:
        async with raw_connection(door.url) as client:
            await client.send(POST % 4 + b"body" + blanks[0])
            assert (await client.answer())[0] == 200
            for each in blanks[1:]:
                await client.send(each + GET)
                assert (await client.answer())[0] == 200
                await client.send(each)
            assert last_status(await client.ended()) == ends, blanks

    async with front_door(**SHORT | {"headers_seconds": 0.1, "keepalive_seconds": 0.3}) as door:
        cases = [((b"\r\n",), b""), ((b"", b"\r\n"), b""), ((b"\r\n" * 33,), b"408"), ((b"\r\nGE",), b"408")]
        await asyncio.gather(*(stray(door, *blanks, ends=ends) for blanks, ends in cases))


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    before = refused("response not read")
    async with front_door(**SHORT) as door:
        with reader_of(4096) as client:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, address_of(door))
            for _ in range(20):  # also behind answers that were not read
                client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            await loop.sock_recv(client, 1)
            await door.until_empty()
    assert refused("response not read") - before == 1


async def test_the_next_request_begins_when_the_client_has_read_the_response() -> None:
    loop, received = asyncio.get_running_loop(), bytearray()
    async with front_door() as door:
        with reader_of(4096) as client:
            await loop.sock_connect(client, address_of(door))
            await loop.sock_sendall(
                client, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            await loop.sock_recv(client, 1)
            await asyncio.sleep(0.05)  # time to begin the next one, if it would
            assert door.requests == ["/big"]
            async with asyncio.timeout(20):
                while not received.endswith(b"/last"):
                    received[:-100] = b""
                    received += await loop.sock_recv(client, 1 << 20)


async def test_clients_that_have_not_read_for_longest_are_disconnected_where_too_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = refused("response not read")
    loop = asyncio.get_running_loop()
    async with front_door(headers_seconds=0.3) as door:
        with reader_of(4096) as first, reader_of(4096) as second, reader_of(4096) as third:
            for client in (first, second, third):
                await loop.sock_connect(client, address_of(door))
                await loop.sock_sendall(client, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
                await loop.sock_recv(client, 1)
            unsent = sum(each.unsent_bytes for each in door.connections.connections)  # type: ignore[union-attr]
            assert unsent > 3_000_000
            monkeypatch.setattr(connections_module, "_MOST_UNSENT_BYTES", unsent - 1)
            async with asyncio.timeout(5):
                while len(door.connections.connections) > 2:  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.01)
            assert await is_reset(loop, first)
    assert refused("response not read") - before == 1


async def is_reset(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bool:
    try:
        while await loop.sock_recv(client, 1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


def reader_of(size: int) -> socket.socket:
    """Return a client's socket that takes few bytes before they are read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    client.setblocking(False)
    return client


def address_of(door: FrontDoor) -> tuple[str, int]:
    return "127.0.0.1", int(door.url.rpartition(":")[2])


async def test_a_client_that_reads_slowly_and_at_the_least_rate_gets_the_whole_response() -> None:
    loop, received = asyncio.get_running_loop(), 0
    async with front_door(**SHORT, least_rate=20_000) as door:
        with reader_of(65_536) as client:
            await loop.sock_connect(client, address_of(door))
            await loop.sock_sendall(client, b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            slow_until = loop.time() + 5 * SHORT["unread_seconds"]
            while part := await loop.sock_recv(client, 50_000):
                received += len(part)
                # In the time that it has it reads far less than the system takes from the server at once.
                await asyncio.sleep(0.1 if loop.time() < slow_until else 0)
    assert received > 8_000_000
