"""The direct transport to a provider: bodies that are long or come slowly, what ends a connection, and how often."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import httpx
import pytest

from receiver.clock import utc_now
from receiver.http_client.connection import Connection
from receiver.http_client.streamed_exchange import MOST_UNREAD
from receiver.lease_check import LeaseEnded, SendLease, under
from receiver.providers.direct_transport import DirectTransport
from receiver.providers.outgoing import Timeouts
from tests.fakes.event_loops import EACH_LOOP, on_each_loop
from tests.fakes.raw_server import RawServer, Talk, tcp_server

pytestmark = [pytest.mark.no_database("only speaks HTTP"), EACH_LOOP]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SOON = 10.0
SHORT = 0.3
SILENCE = 1.0
"""The longest silence where waits of 0.6 of it come one after another."""
LONG_BODY = b"0123456789abcdef" * 500_000


@asynccontextmanager
async def transport_with(*, read: float = SOON, pool: float = SOON) -> AsyncIterator[DirectTransport]:
    transport = DirectTransport(ssl.create_default_context(), Timeouts(connect=SOON, read=read, pool=pool))
    try:
        yield transport
    finally:
        await transport.aclose()


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    async with tcp_server(talk) as port:
        yield f"http://127.0.0.1:{port}/"


async def body_of(response: httpx.Response) -> bytes:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    body = b"".join([part async for part in response.stream])
    await response.aclose()
    return body


async def get(transport: DirectTransport, url: str, method: str = "GET") -> bytes:
    return await body_of(await transport.send(method, url, {}, None))


async def parts_of(parts: Sequence[bytes], *, fails: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(0)
    if fails is not None:
        raise fails


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with suppress(OSError):
        while part := await reader.read(65536):
            received += part
    return received


@pytest.mark.parametrize("length", [None, 8_000_000])
@on_each_loop
async def test_a_body_that_comes_in_parts_arrives_whole_and_the_connection_is_used_again(length: int | None) -> None:
    received: list[bytes] = []
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            head = await head_of(reader)
            if b"content-length: 8000000\r\n" in head:
                body = await reader.readexactly(8_000_000)
            else:
                assert b"Transfer-Encoding: chunked\r\n" in head
                body = b""
                while size := int(await reader.readline(), 16):
                    body += await reader.readexactly(size)
                    assert await reader.readexactly(2) == b"\r\n"
                assert await reader.readexactly(2) == b"\r\n"
            received.append(body)
            writer.write(OK)

    headers = {} if length is None else {"content-length": str(length)}
    pieces = [LONG_BODY[:10], b"", LONG_BODY[10:5_000_000], LONG_BODY[5_000_000:]]
    async with talking(talk) as url, transport_with() as transport:
        for _ in range(2):
            assert await body_of(await transport.send("POST", url, headers, parts_of(pieces))) == b"ok"
    assert received == [LONG_BODY] * 2
    assert connections == 1


@pytest.mark.parametrize(
    ("parts", "fails", "headers"),
    [
        ([b"abc"], RuntimeError("planted"), {}),
        ([b"abc"], None, {"content-length": "9"}),
        ([b"abc", b"def"], None, {"content-length": "5"}),
    ],
    ids=["it raises", "it is too short", "it is too long"],
)
@on_each_loop
async def test_a_body_that_breaks_off_is_not_taken_for_the_whole(
    parts: Sequence[bytes], fails: Exception | None, headers: dict[str, str]
) -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.set_result(await until_closed(reader))

    async with talking(talk) as url, transport_with() as transport:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await transport.send("POST", url, headers, parts_of(parts, fails=fails))
        sent = await asyncio.wait_for(received, SOON)
    assert "planted" not in str(caught.value)
    assert not sent.endswith(b"0\r\n\r\n")
    assert b"def" not in sent


@on_each_loop
async def test_an_answer_before_the_end_of_the_request_is_read_and_the_rest_is_not_sent() -> None:
    is_ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await until_closed(reader)

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            is_ended.set()

    async with talking(talk) as url, transport_with() as transport:
        response = await transport.send("POST", url, {}, endless())
        assert response.status_code == 413
        assert await body_of(response) == b"no"
        await asyncio.wait_for(is_ended.wait(), SOON)


@on_each_loop
async def test_a_body_that_is_not_taken_is_not_read_and_is_whole_when_it_is() -> None:
    written = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (4 * len(LONG_BODY)))
        for begin in range(0, 4 * len(LONG_BODY), 64_000):
            writer.write(LONG_BODY[begin % len(LONG_BODY) :][:64_000])
            await writer.drain()
            written += 64_000
        await head_of(reader)
        writer.write(OK)

    async with talking(talk) as url, transport_with() as transport:
        response = await transport.send("GET", url, {}, None)
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.1)
        assert written < 2 * len(LONG_BODY)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        sizes, size, tail = [], 0, b""
        async for part in response.stream:
            sizes.append(len(part))
            size, tail = size + len(part), (tail + part)[-100:]
        assert size == 4 * len(LONG_BODY)
        assert tail == LONG_BODY[-100:]
        assert max(sizes) < MOST_UNREAD + (1 << 20)
        assert await get(transport, url) == b"ok"


@on_each_loop
async def test_a_response_that_is_not_read_to_its_end_closes_its_connection() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n"
    async with RawServer(answer, forever=b"x" * 10_000) as server, transport_with() as transport:
        response = await transport.send("GET", server.url("/"), {}, None)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        assert await anext(aiter(response.stream))
        await response.aclose()
        await asyncio.wait_for(server.hung_up.wait(), SOON)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"])
@on_each_loop
async def test_a_call_that_is_cancelled_closes_its_connection(answer: bytes) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer)
        begun.set()
        await until_closed(reader)
        closed.set()

    async with talking(talk) as url, transport_with() as transport:
        calling = asyncio.create_task(get(transport, url))
        await asyncio.wait_for(begun.wait(), SOON)
        await asyncio.sleep(0.05)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.wait_for(closed.wait(), SOON)


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        (b"content-length: 9\r\n\r\nab", httpx.RemoteProtocolError),
        (b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n", httpx.RemoteProtocolError),
        (b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n", httpx.RemoteProtocolError),
    ],
)
@on_each_loop
async def test_what_arrived_of_a_broken_body_is_passed_on_and_then_it_raises(
    rest: bytes, error: type[httpx.TransportError]
) -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\n" + rest) as server, transport_with() as transport:
        response = await transport.send("GET", server.url("/"), {}, None)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        parts = aiter(response.stream)
        assert await anext(parts) == b"ab"
        for again in (parts, aiter(response.stream)):
            with pytest.raises(error):
                await anext(again)


class ClosesOnRequest:
    """Answers the first request on a connection, and closes it when one more arrives; `first` closes on each."""

    def __init__(self, *, first: bool = False) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._first = first

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.requests.append((await head_of(reader)).split(b" ")[0])
        if self._first:
            return
        writer.write(OK)
        with suppress(asyncio.IncompleteReadError):
            self.requests.append((await head_of(reader)).split(b" ")[0])


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@on_each_loop
async def test_what_changes_nothing_when_it_is_repeated_is_sent_once_more_after_a_kept_connection_was_closed(
    method: str,
) -> None:
    server = ClosesOnRequest()
    async with talking(server.talk) as url, transport_with() as transport:
        assert await get(transport, url) == b"ok"
        assert await get(transport, url, method) == (b"" if method == "HEAD" else b"ok")
    assert server.requests == [b"GET", method.encode(), method.encode()]
    assert server.connections == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@on_each_loop
async def test_what_may_change_something_is_never_sent_twice(method: str) -> None:
    server = ClosesOnRequest()
    async with talking(server.talk) as url, transport_with() as transport:
        assert await get(transport, url) == b"ok"
        with pytest.raises(httpx.RemoteProtocolError):
            await get(transport, url, method)
    assert server.requests == [b"GET", method.encode()]
    assert server.connections == 1


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@on_each_loop
async def test_nothing_is_sent_twice_when_a_new_connection_is_closed(method: str) -> None:
    server = ClosesOnRequest(first=True)
    async with talking(server.talk) as url, transport_with() as transport:
        with pytest.raises(httpx.RemoteProtocolError):
            await get(transport, url, method)
    assert server.requests == [method.encode()]


@pytest.mark.parametrize("is_told", [True, False])
@on_each_loop
async def test_a_connection_that_is_closed_before_the_request_is_written_sent_nothing(is_told: bool) -> None:
    class Lost(DirectTransport):
        async def _acquired(self, *arguments: object) -> Connection:
            connection = await super()._acquired(*arguments)  # type: ignore[arg-type]
            if is_told:
                connection.cut()
            else:
                assert connection._transport is not None
                connection._transport.abort()  # the protocol is told in the next turn of the loop
            return connection

    async with RawServer(OK) as server:
        transport = Lost(ssl.create_default_context(), Timeouts(SOON, SOON, SOON))
        with pytest.raises(httpx.ConnectError):
            await get(transport, server.url("/"), "POST")
        await transport.aclose()
    assert server.requests == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"])
@pytest.mark.parametrize("error", [RuntimeError("planted"), ConnectionResetError("planted")])
@on_each_loop
async def test_a_connection_that_is_lost_for_whatever_reason_raises_an_error_of_httpx(
    answer: bytes, error: Exception
) -> None:
    class Lost(DirectTransport):
        async def _acquired(self, *arguments: object) -> Connection:
            connection = await super()._acquired(*arguments)  # type: ignore[arg-type]
            asyncio.get_running_loop().call_later(0.1, connection.connection_lost, error)
            return connection

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await until_closed(reader)

    transport = Lost(ssl.create_default_context(), Timeouts(SOON, SOON, SOON))
    async with talking(talk) as url:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)) as caught:
            await get(transport, url)
        await transport.aclose()
    assert "planted" not in str(caught.value)


@on_each_loop
async def test_a_streamed_request_is_not_begun_without_its_lease() -> None:
    async with RawServer(OK, keeps_open=True) as server, transport_with() as transport:
        for _ in range(2):
            with pytest.raises(LeaseEnded), under(SendLease(utc_now() - timedelta(seconds=1))):
                await transport.send("POST", server.url("/"), {}, parts_of([b"abc"]))
        assert await get(transport, server.url("/")) == b"ok"
    assert [request.split(b" ")[0] for request in server.requests] == [b"GET"]
    assert server.connections == 1


@on_each_loop
async def test_a_silence_ends_the_call_and_bytes_that_come_slowly_do_not() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        for begin in range(0, len(answer), 8):
            writer.write(answer[begin : begin + 8])
            await asyncio.sleep(SHORT / 3)
        for _ in range(3):
            writer.write(b"x")
            await asyncio.sleep(SHORT / 2)

    async def falls_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer + b"x")
        await until_closed(reader)

    async with transport_with(read=SHORT) as transport:
        async with talking(slow) as url:
            assert await get(transport, url) == b"xxx"
        async with talking(falls_silent) as url:
            with pytest.raises(httpx.ReadTimeout):
                await get(transport, url)


@pytest.mark.parametrize("is_streamed", [False, True])
@on_each_loop
async def test_a_server_that_takes_no_bytes_ends_the_call(is_streamed: bool) -> None:
    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    body = LONG_BODY * 3
    async with talking(deaf) as url, transport_with(read=SHORT) as transport, asyncio.timeout(SOON):
        with pytest.raises(httpx.ReadTimeout) as caught:
            await transport.send("POST", url, {}, parts_of([body, b"x"]) if is_streamed else body)
    causes: list[BaseException] = []
    cause: BaseException | None = caught.value
    while cause is not None:
        assert cause not in causes, "an error is its own cause"
        causes.append(cause)
        cause = cause.__cause__


@on_each_loop
async def test_the_answer_to_a_long_body_is_waited_for_from_when_its_last_byte_was_taken() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(SILENCE * 0.6)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await head_of(reader)
        await reader.readexactly(3 * len(LONG_BODY))
        await asyncio.sleep(SILENCE * 0.6)
        writer.write(OK)
        await until_closed(reader)

    async with talking(talk) as url, transport_with(read=SILENCE) as transport:
        assert await body_of(await transport.send("POST", url, {}, LONG_BODY * 3)) == b"ok"


@on_each_loop
async def test_a_body_that_comes_slowly_is_waited_for_and_the_answer_only_after_it() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0\r\n\r\n")
        await asyncio.sleep(SILENCE * 0.6)
        writer.write(OK)
        await until_closed(reader)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(SILENCE * 0.6)
            yield b"x"

    async with talking(talk) as url, transport_with(read=SILENCE) as transport:
        assert await body_of(await transport.send("POST", url, {}, slow())) == b"ok"


@on_each_loop
async def test_no_more_connections_are_used_than_allowed_and_the_wait_for_one_is_bounded() -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\n\r\n", forever=b"x" * 1000) as server:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("receiver.providers.direct_transport.MOST_CONNECTIONS", 2)
            async with transport_with(pool=0.1) as transport:
                held = [await transport.send("GET", server.url("/"), {}, None) for _ in range(2)]
                with pytest.raises(httpx.PoolTimeout):
                    await transport.send("POST", server.url("/"), {}, b"{}")
                await held[0].aclose()
                held.append(await transport.send("POST", server.url("/"), {}, b"{}"))
                for response in held:
                    await response.aclose()
    assert server.connections == 3


@on_each_loop
async def test_closing_ends_every_call() -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", keeps_open=True) as server:
        async with transport_with() as transport:
            calling = asyncio.create_task(get(transport, server.url("/")))
            await asyncio.wait_for(server.answered.wait(), SOON)
        with pytest.raises(httpx.TransportError):
            await asyncio.wait_for(calling, SOON)
        with pytest.raises(httpx.ConnectError):
            await get(transport, server.url("/"))


@on_each_loop
async def test_a_body_without_a_length_is_not_taken_for_the_whole_when_the_transport_is_closed() -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\n\r\nab", keeps_open=True) as server:
        async with transport_with() as transport:
            response = await transport.send("GET", server.url("/"), {}, None)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            parts = aiter(response.stream)
            assert await anext(parts) == b"ab"
        with pytest.raises(httpx.TransportError):
            await anext(parts)


@on_each_loop
async def test_nothing_is_sent_after_closing_even_if_nothing_was_sent_before() -> None:
    async with RawServer(OK) as server:
        async with transport_with() as transport:
            pass
        with pytest.raises(httpx.ConnectError):
            await get(transport, server.url("/"), "POST")
    assert server.connections == 0


@pytest.mark.parametrize("is_streamed", [False, True])
@on_each_loop
async def test_a_request_names_one_host_and_one_end_of_its_body_whatever_headers_are_given(is_streamed: bool) -> None:
    received: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await head_of(reader))
        writer.write(OK)
        await until_closed(reader)

    headers = {"host": "tenant.example", "Transfer-Encoding": "chunked", "Content-Length": "2" if is_streamed else "7"}
    async with talking(talk) as url, transport_with() as transport:
        body = parts_of([b"{", b"}"]) if is_streamed else b"{}"
        assert await body_of(await transport.send("POST", url, headers, body)) == b"ok"
    lines = received[0].lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"host:")] == [b"host: tenant.example"]
    assert [line for line in lines if line.startswith(b"content-length:")] == [b"content-length: 2"]
    assert not [line for line in lines if line.startswith(b"transfer-encoding:")]


@on_each_loop
async def test_a_connection_is_used_again_after_each_kind_of_response() -> None:
    answers = [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ]
    for answer in answers:
        async with RawServer(answer, keeps_open=True) as server, transport_with() as transport:
            for _ in range(3):
                await get(transport, server.url("/"))
        assert server.connections == 1
