"""Answers whose head or body is not as it should be: what counts is the status, against raw servers on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from receiver.http_client.head_reader import MOST_HEAD_BYTES
from receiver.outbound.guard import AddressGuard
from receiver.outbound.sender import Sender, SendResult
from tests.fakes.raw_server import RawServer

pytestmark = pytest.mark.no_database("it sends what it is given")

HEADERS = {"content-type": "application/json", "webhook-id": "evt_1"}
BODY = b'{"type":"ping"}'
EMPTY = b"content-length: 0\r\n"

ODD_HEADS = {
    "a header of 9 KB": b"x-long: " + b"y" * 9_000 + b"\r\n" + EMPTY,
    "a header of 100 KB": b"x-long: " + b"y" * 100_000 + b"\r\n" + EMPTY,
    "hundreds of headers": b"".join(b"x-%d: y\r\n" % number for number in range(900)) + EMPTY,
    "hundreds of cookies": b"".join(b"set-cookie: c%d=%d; path=/\r\n" % (n, n) for n in range(300)) + EMPTY,
    "more than is read": b"".join(b"x-%d: %s\r\n" % (n, b"y" * 4000) for n in range(100)) + EMPTY,
    "one header longer than what is read": b"x-long: " + b"y" * (MOST_HEAD_BYTES + 1) + b"\r\n" + EMPTY,
    "a name with a blank": b"bad name: y\r\n" + EMPTY,
    "a name that is empty": b": y\r\n" + EMPTY,
    "a line without a colon": b"rubbish\r\n" + EMPTY,
    "a value with control characters": b"x: a\x00\x01\x7fb\r\n" + EMPTY,
    "bytes that are no text": b"x: \xff\xfe\xe9\r\n" + EMPTY,
    "a name that is no text": b"\xff\xfe: x\r\n" + EMPTY,
    "a folded line": b"x: a\r\n b\r\n" + EMPTY,
    "a negative length": b"content-length: -1\r\n",
    "a length that is no number": b"content-length: many\r\n",
    "a length that is too large for any integer": b"content-length: " + b"9" * 400 + b"\r\n",
    "two lengths": b"content-length: 1\r\ncontent-length: 2\r\n",
    "a length and chunks": b"content-length: 1\r\ntransfer-encoding: chunked\r\n",
    "an unknown transfer encoding": b"transfer-encoding: magic\r\n",
    "a content encoding that is a lie": b"content-encoding: gzip\r\ncontent-length: 3\r\n",
    "an unknown content encoding": b"content-encoding: \x00\r\n" + EMPTY,
    "an offer to upgrade": b"connection: upgrade\r\nupgrade: h2c\r\n" + EMPTY,
    "cookies that are none": b"set-cookie: \x01=;;;=\r\nset-cookie: [a]=\xe9\r\n" + EMPTY,
}
ODD_BODIES = {
    "a body shorter than its length": b"content-length: 100\r\n\r\nabc",
    "a body longer than its length": b"content-length: 1\r\n\r\nabc",
    "a chunk whose size is no number": b"transfer-encoding: chunked\r\n\r\nabc\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": b"transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "chunks without an end": b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "a body that no header announces": b"\r\nabc",
    "bytes for gzip that are not": b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
}
STATUS_LINES = {
    "without a reason": b"HTTP/1.1 {status} \r\n",
    "without a reason and its blank": b"HTTP/1.1 {status}\r\n",
    "with a reason that is no text": b"HTTP/1.1 {status} \xff\xe9\r\n",
    "with a long reason": b"HTTP/1.1 {status} " + b"x" * 20_000 + b"\r\n",
    "of HTTP/1.0": b"HTTP/1.0 {status} Whatever\r\n",
    "of a version that does not exist": b"HTTP/3.7 {status} Whatever\r\n",
    "of a version without a minor number": b"HTTP/2 {status}\r\n",
    "after an empty line": b"\r\nHTTP/1.1 {status} Whatever\r\n",
    "after interim responses": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    b"HTTP/1.1 {status} Whatever\r\n",
}
STATUSES = [200, 204, 410, 503]
MOST_WRITTEN = 16 * 1024 * 1024
"""Bytes. What a server has written beyond the bounds is in the system's buffers when the connection is closed."""


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """A sender that may reach loopback."""
    async with Sender(AddressGuard(allow_private=True), timeout=10) as made:
        yield made


async def answered(sender: Sender, answer: bytes) -> SendResult:
    async with RawServer(answer) as server:
        return await sender.send(server.url("/planted"), HEADERS, BODY)


def check(result: SendResult, status: int) -> None:
    assert (result.status, result.error) == (status, None)
    assert result.ok == (200 <= status < 300)
    assert result.duration_ms < 5000


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("head", ODD_HEADS.values(), ids=ODD_HEADS.keys())
async def test_odd_headers_do_not_hide_the_status(sender: Sender, head: bytes, status: int) -> None:
    check(await answered(sender, b"HTTP/1.1 %d Whatever\r\n" % status + head + b"\r\n"), status)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("rest", ODD_BODIES.values(), ids=ODD_BODIES.keys())
async def test_odd_bodies_do_not_hide_the_status(sender: Sender, rest: bytes, status: int) -> None:
    check(await answered(sender, b"HTTP/1.1 %d Whatever\r\n" % status + rest), status)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("line", STATUS_LINES.values(), ids=STATUS_LINES.keys())
async def test_a_status_line_may_be_written_in_several_ways(sender: Sender, line: bytes, status: int) -> None:
    line = line.replace(b"{status}", b"%d" % status)
    check(await answered(sender, line + EMPTY + b"\r\n"), status)


async def test_line_feeds_alone_end_lines(sender: Sender) -> None:
    check(await answered(sender, b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"), 200)


async def test_a_head_that_is_cut_after_the_status_has_it(sender: Sender) -> None:
    check(await answered(sender, b"HTTP/1.1 200 OK\r\nconten"), 200)


async def test_a_redirect_with_odd_headers_is_a_failure_and_is_not_followed(sender: Sender) -> None:
    result = await answered(sender, b"HTTP/1.1 302 Found\r\nlocation: /planted\r\nbad name: x\r\n\r\n")
    assert (result.status, result.error, result.ok) == (302, "redirects are not followed", False)


@pytest.mark.parametrize("before", [b"", b"bad name: x\r\n"])
async def test_retry_after_is_read_from_any_head(sender: Sender, before: bytes) -> None:
    result = await answered(sender, b"HTTP/1.1 503 Busy\r\n" + before + b"Retry-After: 120\r\n" + EMPTY + b"\r\n")
    assert (result.status, result.retry_after) == (503, 120)


ENDLESS = {
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", None),
    "interim responses with headers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", None),
    "headers of an interim response": (b"HTTP/1.1 102 Processing\r\n", b"x-header: value\r\n", None),
    "blank lines before the status line": (b"", b"\r\n", None),
    "a status line without a status": (b"HTTP/1.1 ", b" ", None),
    "a reason": (b"HTTP/1.1 200 ", b"x", None),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x-header: value\r\n", 200),
    "one header": (b"HTTP/1.1 200 OK\r\nx-header: ", b"x", 200),
    "the extension of a chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=", b"b", 200),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: value\r\n", 200),
    "one trailer": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ", b"value", 200),
    "chunks of one byte": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"1;" + b"x" * 999 + b"\r\ny\r\n",
        200,
    ),
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x", 200),
}


@pytest.mark.parametrize(("answer", "part", "status"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_has_no_end_is_not_read_to_its_end(
    sender: Sender, answer: bytes, part: bytes, status: int | None
) -> None:
    async with RawServer(answer, forever=part * (32_000 // len(part))) as server:
        result = await sender.send(server.url("/"), HEADERS, BODY)
        await server.hung_up.wait()
    assert (result.status, result.error) == (status, None if status else "the response is not valid HTTP")
    assert result.duration_ms < 4000
    assert server.written < MOST_WRITTEN


async def test_interim_responses_within_the_bound_are_passed_over(sender: Sender) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * 2000
    check(await answered(sender, interim + b"HTTP/1.1 200 OK\r\n" + EMPTY + b"\r\n"), 200)
    result = await answered(sender, interim * 2 + b"HTTP/1.1 200 OK\r\n" + EMPTY + b"\r\n")
    assert (result.status, result.error) == (None, "the response is not valid HTTP")


async def test_a_connection_on_which_more_arrives_than_was_asked_for_is_closed(sender: Sender) -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\n" + EMPTY + b"\r\n", forever=b"x" * 32_000) as server:
        check(await sender.send(server.url("/"), HEADERS, BODY), 200)
        await server.hung_up.wait()
        check(await sender.send(server.url("/"), HEADERS, BODY), 200)
        assert (server.connections, len(server.requests)) == (2, 2)
    assert server.written < MOST_WRITTEN


async def test_a_connection_is_used_again_after_a_long_header(sender: Sender) -> None:
    head = b"HTTP/1.1 200 OK\r\nx-long: " + b"y" * 9_000 + b"\r\n" + EMPTY + b"\r\n"
    async with RawServer(head, keeps_open=True) as server:
        for _ in range(3):
            check(await sender.send(server.url("/"), HEADERS, BODY), 200)
        assert (server.connections, len(server.requests)) == (1, 3)


async def test_after_an_odd_head_the_next_delivery_has_its_own_status(sender: Sender) -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n") as odd, RawServer(b"") as silent:
        check(await sender.send(odd.url("/"), HEADERS, BODY), 200)
        result = await sender.send(silent.url("/"), HEADERS, BODY)
    assert (result.status, result.error) == (None, "connection closed without a response")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_a_head_may_arrive_in_pieces(sender: Sender, size: int) -> None:
    answer = b"HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\nbad name: x\r\nRetry-After: 5\r\n\r\n"
    async with RawServer(answer, piece=size) as server:
        result = await sender.send(server.url("/"), HEADERS, BODY)
    assert (result.status, result.error) == (200, None)


async def test_cancelling_while_a_body_is_waited_for_is_not_swallowed(sender: Sender) -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", keeps_open=True) as server:
        sending = asyncio.create_task(sender.send(server.url("/"), HEADERS, BODY))
        await server.answered.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


class Loopback(AbstractResolver):
    """A resolver for which every name is this machine."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_only_the_host_is_rewritten_in_a_url_with_a_name_that_is_not_ascii() -> None:
    names = Loopback()
    async with (
        RawServer(b"HTTP/1.1 200 OK\r\n" + EMPTY + b"\r\n") as server,
        Sender(AddressGuard(allow_private=True, inner=names), timeout=10) as sender,
    ):
        check(await sender.send(f"http://Bücher.example:{server.port}/a/../%2F?x=+%2b#y", HEADERS, BODY), 200)
    assert server.request_lines == [b"POST /a/../%2F?x=+%2b HTTP/1.1"]
    assert b"\r\nhost: xn--bcher-kva.example:%d\r\n" % server.port in server.requests[0].lower()
    assert names.asked == ["xn--bcher-kva.example"]
