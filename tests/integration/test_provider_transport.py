"""The transport to a provider: what is sent once or never, unusual responses, TLS and proxies."""

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from receiver.lookups.resolver import NameLookups
from receiver.providers.calls import NotSent, ResponseLost
from receiver.providers.direct_transport import DirectTransport
from receiver.providers.outgoing import Timeouts
from receiver.providers.piapi.calls import Calls, PiAPIResponse
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.transport import open_transport, proxy_for
from tests.fakes.certificate import self_signed
from tests.fakes.dns import DnsServer
from tests.fakes.raw_server import RawServer
from tests.fakes.servers import bound

pytestmark = pytest.mark.no_database("only speaks HTTP")

KEY = "planted-key-0123456789"
TIMEOUTS = Timeouts(connect=5, read=10, pool=10)
BODY = b'{"code":200,"data":[]}'
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Server:
    """Sends the next of `answers` to each request, and closes when it has no more; records all that arrives."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while request := await read_request(reader):
            self.requests.append(request)
            if not self.answers:
                break
            writer.write(self.answers.pop(0))
            if not self.answers:
                break
        writer.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


@asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Run a server; at the end every connection is closed, on this side too."""
    talks: set[asyncio.Task[None] | None] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls) as server:
        scheme = "https" if tls else "http"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.sleep(0)  # one that was accepted just now begins
    await asyncio.gather(*filter(None, talks), return_exceptions=True)


@asynccontextmanager
async def calling(url: str, *, patience: float = 10) -> AsyncIterator[Calls]:
    calls = Calls(base_url=url, api_key=KEY, timeout=patience, rate_limiter=RateLimiter(1000))
    try:
        yield calls
    finally:
        await calls.aclose()


async def answer_to(answer: bytes, method: str = "GET") -> PiAPIResponse | NotSent | ResponseLost:
    async with listening(Server(answer).talk) as url, calling(url) as calls:
        return await calls.call(method, "/")


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_a_post_on_a_connection_that_was_closed_is_not_sent_again() -> None:
    class ClosesOnSecondRequest(Server):
        """Keeps the connection until a second request arrives on it, and closes it without a response."""

        async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            self.requests.append(await read_request(reader))
            writer.write(WHOLE)
            self.requests.append(await read_request(reader))

    server = ClosesOnSecondRequest()
    async with listening(server.talk) as url, calling(url) as calls:
        assert isinstance(await calls.call("GET", "/"), PiAPIResponse)
        outcome = await calls.call("POST", "/", content=b"{}")
    assert isinstance(outcome, ResponseLost)
    assert server.connections == 1
    assert [request.split(b" ")[0] for request in server.requests] == [b"GET", b"POST"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxy",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
    ids=["closed", "half a line", "nonsense", "short", "half a chunk", "no chunk", "no gzip", "a huge header"],
)
async def test_a_post_without_a_complete_response_is_lost_and_sent_once(answer: bytes) -> None:
    server = Server(answer)
    async with listening(server.talk) as url, calling(url) as calls:
        outcome = await calls.call("POST", "/", content=b"{}")
    assert isinstance(outcome, ResponseLost)
    assert len(server.requests) == 1
    assert KEY not in outcome.message


async def test_a_post_without_a_response_in_time_is_lost() -> None:
    async with listening(silence) as url, calling(url, patience=0.2) as calls:
        outcome = await calls.call("POST", "/", content=b"{}")
    assert outcome == ResponseLost("the provider did not answer in time (ReadTimeout)")


async def test_a_refused_connection_sent_nothing() -> None:
    with bound() as held:
        async with calling(f"http://127.0.0.1:{held.getsockname()[1]}") as calls:
            outcome = await calls.call("POST", "/", content=b"{}")
    assert outcome == NotSent("the connection to the provider failed (ConnectError)")


async def test_a_certificate_that_is_not_trusted_sent_nothing(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.append(await reader.read())

    async with listening(talk, server_tls(self_signed(tmp_path))) as url, calling(url) as calls:
        outcome = await calls.call("POST", "/", content=b"{}")
    assert outcome == NotSent("the connection to the provider failed (ConnectError)")
    assert not any(received)


async def test_a_server_that_does_not_speak_tls_sent_nothing() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(talk) as url, calling(url.replace("http:", "https:")) as calls:
        assert isinstance(await calls.call("POST", "/", content=b"{}"), NotSent)


async def test_a_handshake_that_does_not_end_sent_nothing() -> None:
    async with listening(silence) as url, calling(url.replace("http:", "https:"), patience=0.3) as calls:
        outcome = await calls.call("POST", "/", content=b"{}")
    assert outcome == NotSent("the provider did not answer in time (ConnectTimeout)")


async def test_the_environments_certificates_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with listening(Server(WHOLE).talk, server_tls(file)) as url, calling(url) as calls:
        assert isinstance(await calls.call("GET", "/"), PiAPIResponse)


def server_tls(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
        b"HTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n" + WHOLE,
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n5\r\n"
        + BODY[:5]
        + b"\r\n11\r\n"
        + BODY[5:]
        + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(BODY),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: deflate\r\n\r\n" + zlib.compress(BODY),
        b"HTTP/1.1 200 OK\r\nx-policy: " + b"x" * 20_000 + b"\r\n\r\n" + BODY,
    ],
    ids=["whole", "continue", "hints", "to the end", "HTTP 1.0", "no reason", "gzip", "deflate", "a long header"],
)
async def test_an_unusual_response_is_read(answer: bytes) -> None:
    outcome = await answer_to(answer)
    assert isinstance(outcome, PiAPIResponse)
    assert (outcome.status, outcome.body) == (200, {"code": 200, "data": []})


@pytest.mark.parametrize("status", [204, 304, 404, 429])
async def test_a_response_without_a_body_is_read(status: int) -> None:
    outcome = await answer_to(b"HTTP/1.1 %d\r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n" % status, "POST")
    assert isinstance(outcome, PiAPIResponse)
    assert (outcome.status, outcome.body, outcome.retry_after) == (status, None, 0)


async def test_cookies_are_not_kept() -> None:
    cookie = WHOLE.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n", 1)
    server = Server(cookie, WHOLE)
    async with listening(server.talk) as url, calling(url) as calls:
        await calls.call("GET", "/")
        await calls.call("GET", "/")
    assert server.connections == 1
    assert b"cookie" not in server.requests[1].lower()


async def test_a_header_cannot_smuggle_in_another_one() -> None:
    server = Server(WHOLE)
    async with listening(server.talk) as url:
        transport = await open_transport(url, TIMEOUTS)
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await transport.send("POST", url, {"x-api-key": f"{KEY}\r\nx: y"}, b"{}")
        await transport.aclose()
    assert server.requests == []
    assert KEY not in str(caught.value)


async def test_a_long_body_arrives_complete() -> None:
    server = Server(WHOLE)
    content = b"[" + b"1," * 1_500_000 + b"1]"
    async with listening(server.talk) as url, calling(url) as calls:
        assert isinstance(await calls.call("POST", "/", content=content), PiAPIResponse)
    assert server.requests[0].endswith(content)


async def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(WHOLE)
    async with listening(server.talk) as proxy, calling("http://provider.test") as calls:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        assert isinstance(await calls.call("GET", "/a"), PiAPIResponse)
    assert server.requests[0].startswith(b"GET http://provider.test/a HTTP/1.1\r\n")
    assert f"x-api-key: {KEY}".encode() in server.requests[0].lower()


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://api.piapi.ai", {}, None),
        ("https://api.piapi.ai", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://api.piapi.ai", {"all_proxy": "p:1"}, "http://p:1"),
        ("https://api.piapi.ai", {"http_proxy": "http://p:1"}, None),
        ("https://api.piapi.ai", {"https_proxy": "http://p:1", "no_proxy": "piapi.ai"}, None),
        ("https://api.piapi.ai", {"https_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("https://api.piapi.ai", {"https_proxy": "http://p:1", "no_proxy": "example.com"}, "http://p:1"),
        ("http://127.0.0.1:8080", {"http_proxy": "http://p:1", "no_proxy": "localhost,127.0.0.1"}, None),
    ],
)
def test_the_environment_names_the_proxy(
    url: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(httpx.URL(url)) == proxy


async def test_without_a_proxy_the_connection_is_direct() -> None:
    transport = await open_transport("https://api.piapi.ai", TIMEOUTS)
    assert isinstance(transport, DirectTransport)
    await transport.aclose()


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"\r\n"),
        (b"HTTP/1.1 102 Processing\r\n", b"x: y\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=", b"b"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"x: y\r\n"),
    ],
)
async def test_a_response_that_has_no_end_is_lost_soon(answer: bytes, part: bytes) -> None:
    async with RawServer(answer, forever=part * (32_000 // len(part))) as server:
        async with calling(server.url("")) as calls:
            assert isinstance(await calls.call("POST", "/", content=b"{}"), ResponseLost)
        await server.hung_up.wait()
    assert server.written < 16 << 20


async def test_interim_responses_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    outcome = await answer_to(interim + WHOLE)
    assert isinstance(outcome, PiAPIResponse)
    assert outcome.body == {"code": 200, "data": []}


async def test_a_provider_whose_dns_is_silent_was_not_sent_anything() -> None:
    async with DnsServer() as dns:
        for seconds, error in ((0.1, httpx.ConnectError), (60, httpx.ConnectTimeout)):
            lookups = NameLookups("provider", servers=dns.servers, seconds=seconds)
            transport = DirectTransport(ssl.create_default_context(), Timeouts(0.3, 10, 0.0), lookups)
            with pytest.raises(error):
                await transport.send("POST", "http://silent.example/", {}, None)
            await transport.aclose()
