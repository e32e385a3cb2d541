"""The sender, against real servers on loopback that respond correctly, wrongly, slowly or not at all."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from receiver.outbound.guard import AddressGuard
from receiver.outbound.sender import KEPT_BYTES, Sender, SendResult
from tests.fakes import certificate
from tests.fakes.raw_server import Talk, read_request, tcp_server

pytestmark = pytest.mark.no_database("it sends what it is given")

HEADERS = {"content-type": "application/json", "webhook-id": "evt_1"}
BODY = b'{"type":"ping"}'
SHORT = 0.2
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """A sender that may reach loopback, with a long timeout."""
    async with Sender(AddressGuard(allow_private=True), timeout=10) as made:
        yield made


@pytest.fixture
async def impatient_sender() -> AsyncIterator[Sender]:
    """A sender that may reach loopback, with a short timeout."""
    async with Sender(AddressGuard(allow_private=True), timeout=SHORT) as made:
        yield made


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """An HTTP server; yields its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app, host="127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.port}/hook?token=planted-token"


def responds_with(answer: bytes) -> Talk:
    """A `talk` that reads one request and responds with these bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return talk


def answering(status: int = 200, text: str = "", **headers: str) -> Handler:
    """A handler that always returns the same response."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return handler


async def send_to(sender: Sender, handler: Handler) -> SendResult:
    async with serving(handler) as url:
        return await sender.send(url, HEADERS, BODY)


async def talk_to(sender: Sender, talk: Talk) -> SendResult:
    async with tcp_server(talk) as port:
        return await sender.send(f"http://127.0.0.1:{port}/", HEADERS, BODY)


class Names(AbstractResolver):
    """A resolver that returns the addresses that were set last."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        if not self.address:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [ResolveResult(hostname=host, host=self.address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_a_2xx_is_a_success(sender: Sender) -> None:
    answer = await send_to(sender, answering(200, "thanks"))
    assert answer.ok
    assert (answer.status, answer.error, answer.response) == (200, None, "thanks")
    assert answer.retry_after is None
    assert 0 <= answer.duration_ms < 10_000


async def test_the_request_arrives_unchanged(sender: Sender) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        return web.Response(status=204)

    assert (await send_to(sender, handler)).ok
    [(method, path, headers, body)] = seen
    assert (method, path, body) == ("POST", "/hook?token=planted-token", BODY)
    names = {name.lower(): value for name, value in headers.items()}
    assert names["content-type"] == "application/json"
    assert names["webhook-id"] == "evt_1"
    assert names["user-agent"].startswith("Ringback/")
    assert names["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 502, 503, 504])
async def test_an_error_status_is_a_failure_without_an_error_text(sender: Sender, status: int) -> None:
    answer = await send_to(sender, answering(status, "no"))
    assert not answer.ok
    assert (answer.status, answer.error, answer.response) == (status, None, "no")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(sender: Sender, status: int) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    answer = await send_to(sender, handler)
    assert not answer.ok
    assert (answer.status, answer.error) == (status, "redirects are not followed")
    assert asked == ["/hook"]


async def test_a_silent_server_times_out(impatient_sender: Sender) -> None:
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()
        closed.set()

    async with tcp_server(talk) as port:
        answer = await impatient_sender.send(f"http://127.0.0.1:{port}/", HEADERS, BODY)
        await closed.wait()
    assert (answer.status, answer.error) == (None, "timed out after 0.2 s")
    assert SHORT * 1000 <= answer.duration_ms < 5000


def drips_after(head: bytes) -> Talk:
    """A `talk` that reads one request, sends `head`, then one byte after the other without an end."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    return talk


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\n"])
async def test_a_head_that_arrives_byte_by_byte_times_out(impatient_sender: Sender, head: bytes) -> None:
    answer = await talk_to(impatient_sender, drips_after(head))
    assert (answer.status, answer.error) == (None, "timed out after 0.2 s")
    assert not answer.ok
    assert answer.duration_ms < 5000


@pytest.mark.parametrize("status", [200, 503])
async def test_a_body_that_does_not_end_is_read_in_part(impatient_sender: Sender, status: int) -> None:
    answer = await talk_to(impatient_sender, drips_after(b"HTTP/1.1 %d Whatever\r\n\r\n" % status))
    assert (answer.status, answer.error, answer.ok) == (status, None, status == 200)
    assert answer.response.startswith("x")
    assert answer.duration_ms < 5000


async def test_a_server_that_responds_without_reading_the_request_is_believed(impatient_sender: Sender) -> None:
    done = asyncio.Event()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx")
        await done.wait()

    async with tcp_server(talk) as port:
        answer = await impatient_sender.send(f"http://127.0.0.1:{port}/", HEADERS, b"x" * 1_000_000)
        done.set()
    assert (answer.status, answer.error) == (200, None)


async def test_only_the_start_of_a_huge_response_is_read(sender: Sender) -> None:
    written, size = 0, 10_000_000
    hung_up = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        try:
            while written < size:
                writer.write(b"x" * 10_000)
                await writer.drain()
                written += 10_000
        finally:
            hung_up.set()

    async with tcp_server(talk) as port:
        answer = await sender.send(f"http://127.0.0.1:{port}/", HEADERS, BODY)
        await hung_up.wait()
    assert answer.ok
    assert answer.response == "x" * KEPT_BYTES
    assert written < size


async def test_a_compressed_response_is_not_decompressed(sender: Sender) -> None:
    answer = await talk_to(
        sender, responds_with(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc")
    )
    assert answer.ok
    assert answer.response == "abc"


async def test_a_response_is_text_that_every_database_can_store(sender: Sender) -> None:
    answer = await talk_to(sender, responds_with(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\na\x00b\xff\xc3\xa9"))
    assert answer.response == "ab\ufffdé"


async def test_a_refused_connection(sender: Sender) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        answer = await sender.send(f"http://127.0.0.1:{free.getsockname()[1]}/", HEADERS, BODY)
    assert (answer.status, answer.error, answer.response) == (None, "connection refused", "")
    assert not answer.ok


async def test_a_connection_that_is_closed_at_once(sender: Sender) -> None:
    answer = await talk_to(sender, responds_with(b""))
    assert (answer.status, answer.error) == (None, "connection closed without a response")


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


async def test_a_connection_that_is_reset(sender: Sender) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        reset(writer)

    answer = await talk_to(sender, talk)
    assert (answer.status, answer.error) == (None, "connection reset by peer")


@pytest.mark.parametrize(
    "framing", [b"content-length: 100\r\n\r\nhalf", b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
@pytest.mark.parametrize("status", [200, 500])
async def test_a_response_that_ends_in_the_middle_is_judged_by_its_status(
    sender: Sender, framing: bytes, status: int
) -> None:
    answer = await talk_to(sender, responds_with(b"HTTP/1.1 %d Whatever\r\n" % status + framing))
    assert (answer.status, answer.error, answer.response) == (status, None, "half")
    assert answer.ok == (status == 200)


async def test_a_response_that_is_reset_in_the_middle_is_judged_by_its_status(sender: Sender) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        await writer.drain()
        reset(writer)

    answer = await talk_to(sender, talk)
    # The reset may overtake the bytes before it: then no status has arrived.
    assert (answer.status, answer.error) in [(200, None), (None, "connection reset by peer")]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nrubbish\r\n\r\n",
        b"<html>" * 100_000,
    ],
)
async def test_a_response_that_is_not_http(sender: Sender, rubbish: bytes) -> None:
    answer = await talk_to(sender, responds_with(rubbish))
    assert (answer.status, answer.error) == (None, "the response is not valid HTTP")


async def test_retry_after_in_seconds(sender: Sender) -> None:
    answer = await send_to(sender, answering(429, **{"Retry-After": "120"}))
    assert answer.retry_after == 120
    assert not answer.ok


async def test_retry_after_as_a_date(sender: Sender) -> None:
    then = datetime.now(UTC) + timedelta(seconds=600)
    answer = await send_to(sender, answering(503, **{"Retry-After": format_datetime(then, usegmt=True)}))
    assert answer.retry_after is not None
    assert 590 < answer.retry_after <= 600


async def test_connections_are_kept_and_used_again(sender: Sender) -> None:
    peers = []

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response(text="x" * (KEPT_BYTES - 1))

    async with serving(handler) as url:
        for _ in range(5):
            assert (await sender.send(url, HEADERS, BODY)).ok
    assert len(peers) == 5
    assert len(set(peers)) == 1


async def test_no_cookie_is_kept(sender: Sender) -> None:
    cookies = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with serving(handler) as url:
        for _ in range(2):
            await sender.send(url.replace("127.0.0.1", "localhost"), HEADERS, BODY)
    assert cookies == [None, None]


async def test_no_proxy_of_the_environment_is_used(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await send_to(sender, answering())).ok


async def test_many_at_once_share_a_few_connections() -> None:
    async with (
        serving(answering(200, "ok")) as url,
        Sender(AddressGuard(allow_private=True), timeout=10, connections=4) as sender,
    ):
        answers = await asyncio.gather(*(sender.send(url, HEADERS, BODY) for _ in range(50)))
    assert all(answer.ok for answer in answers)


async def test_cancelling_is_not_swallowed(sender: Sender) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()
        closed.set()

    async with tcp_server(talk) as port:
        sending = asyncio.create_task(sender.send(f"http://127.0.0.1:{port}/", HEADERS, BODY))
        await asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await closed.wait()


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/"])
async def test_a_forbidden_literal_address_is_not_connected_to(url: str) -> None:
    met = []

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(writer)

    async with tcp_server(talk) as port, Sender(AddressGuard(), timeout=10) as sender:
        answer = await sender.send(url.format(port=port), HEADERS, BODY)
    assert answer.status is None
    assert answer.error is not None
    assert answer.error.startswith("address forbidden: ")
    assert met == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_name_that_is_rebound_after_registration_is_not_connected_to(scheme: str) -> None:
    met = []
    names = Names("93.184.216.34")
    guard = AddressGuard(inner=names)

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(writer)

    async with tcp_server(talk) as port, Sender(guard, timeout=10) as sender:
        await guard.check(f"https://hooks.example.com:{port}/")
        names.address = "127.0.0.1"
        answer = await sender.send(f"{scheme}://hooks.example.com:{port}/", HEADERS, BODY)
    assert answer.error == (
        "address forbidden: 127.0.0.1 is not public"
        if scheme == "https"
        else "address forbidden: the URL must start with https://"
    )
    assert met == []


async def test_every_new_connection_is_checked() -> None:
    names = Names("127.0.0.1")
    guard = AddressGuard(allow_private=True, inner=names)
    hang_up = responds_with(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    async with tcp_server(hang_up) as port, Sender(guard, timeout=10) as sender:
        url = f"http://hooks.example.com:{port}/"
        assert (await sender.send(url, HEADERS, BODY)).ok
        names.address = "169.254.169.254"
        answer = await sender.send(url, HEADERS, BODY)
    assert answer.error == "address forbidden: 169.254.169.254 is neither public nor private"
    assert names.asked == 2


async def test_a_name_that_does_not_resolve_any_more() -> None:
    async with Sender(AddressGuard(inner=Names("")), timeout=10) as sender:
        answer = await sender.send("https://hooks.example.com/", HEADERS, BODY)
    assert (answer.status, answer.error) == (None, "name not resolved")


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's TLS context with a self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.self_signed(tmp_path_factory.mktemp("tls")))
    return context


async def test_a_self_signed_certificate_is_not_trusted(sender: Sender, self_signed: ssl.SSLContext) -> None:
    received = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.append(await reader.read())

    async with tcp_server(talk, self_signed) as port:
        answer = await sender.send(f"https://127.0.0.1:{port}/", HEADERS, BODY)
    assert (answer.status, answer.error) == (
        None,
        "TLS: certificate not trusted (self-signed certificate)",
    )
    assert received == []


async def test_a_server_without_tls(sender: Sender) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with tcp_server(talk) as port:
        answer = await sender.send(f"https://127.0.0.1:{port}/", HEADERS, BODY)
    assert answer.status is None
    assert answer.error is not None
    assert answer.error.startswith("TLS: no secure connection (")


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("", {}),
        ("rubbish", {}),
        ("http://127.0.0.1:99999/", {}),
        ("http://127.0.0.1:9/\n", {}),
        ("http://127.0.0.1:9/", {"x-planted": "planted\r\nsecret"}),
    ],
)
async def test_nothing_is_raised_and_no_error_has_a_secret(sender: Sender, url: str, headers: dict[str, str]) -> None:
    answer = await sender.send(url, headers, BODY)
    assert not answer.ok
    assert answer.error
    assert "planted" not in answer.error


async def test_no_error_names_the_url(sender: Sender) -> None:
    for talk in (
        responds_with(b""),
        responds_with(b"rubbish\r\n\r\n"),
        responds_with(b"HTTP/1.1 302 Found\r\nlocation: /planted\r\n\r\n"),
    ):
        async with tcp_server(talk) as port:
            answer = await sender.send(f"http://127.0.0.1:{port}/planted?planted", HEADERS, BODY)
        assert answer.error
        assert "planted" not in answer.error


async def test_a_sender_can_be_made_without_a_loop_and_closed_unused() -> None:
    sender = await asyncio.to_thread(Sender, AddressGuard(), timeout=1)
    await sender.aclose()


async def test_a_closed_sender_returns_an_error_without_raising(sender: Sender) -> None:
    async with serving(answering()) as url:
        await sender.send(url, HEADERS, BODY)
        await sender.aclose()
        answer = await sender.send(url, HEADERS, BODY)
    assert not answer.ok
    assert answer.error == "could not be sent (PoolClosed)"
