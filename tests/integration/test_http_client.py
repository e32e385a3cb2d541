"""The HTTP client against servers on loopback: which connections are kept, how many there are, and what ends them."""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from receiver.http_client.connection import LONG_BODY, Connection
from receiver.http_client.dialer import Dialer
from receiver.http_client.errors import CertificateRefused, ClosedUnanswered, ConnectRefused, NameUnresolved
from receiver.http_client.origin import Origin
from receiver.http_client.pool import ConnectionPool
from receiver.http_client.response_reader import ResponseReader
from receiver.lookups.names import ResolvedName
from tests.fakes.certificate import self_signed
from tests.fakes.event_loops import EACH_LOOP, on_each_loop
from tests.fakes.raw_server import RawServer, Talk, tcp_server
from tests.fakes.servers import bound

pytestmark = [
    pytest.mark.no_database("only speaks HTTP"),
    EACH_LOOP,
]

NAME = "server.example"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LONG = 30.0
SOON = 5.0


class Names:
    """A resolver for which every name has these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.gate = asyncio.Event()
        self.gate.set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolvedName]:
        await self.gate.wait()
        return [
            ResolvedName(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


class Waiting:
    """What waits for a response."""

    def __init__(self, connection: Connection) -> None:
        self.reader = connection.reader
        self.over = asyncio.Event()

    def progressed(self) -> None:
        if self.reader.is_over:
            self.over.set()


@asynccontextmanager
async def pool_of(
    *addresses: str,
    limit: int = 10,
    idle_seconds: float = LONG,
    tls: ssl.SSLContext | None = None,
    names: Names | None = None,
) -> AsyncIterator[ConnectionPool]:
    async def trust() -> ssl.SSLContext:
        assert tls is not None
        return tls

    dialer = Dialer(names or Names(*(addresses or ("127.0.0.1",))), trust if tls else None)
    pool = ConnectionPool(dialer, lambda: ResponseReader(4096), limit=limit, idle_seconds=idle_seconds)
    try:
        yield pool
    finally:
        await pool.aclose()


async def post(pool: ConnectionPool, origin: Origin, body: bytes = b"") -> ResponseReader:
    """Send a request, and return its response when it is over."""
    connection = pool.take(origin) or await pool.acquire(origin)
    waiting = Waiting(connection)
    try:
        head = b"POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (origin.host.encode(), len(body))
        connection.send(waiting, head, body)
        await waiting.over.wait()
    finally:
        pool.give_back(connection)
    return connection.reader


def origin_of(server: RawServer, host: str = NAME) -> Origin:
    return Origin(host, server.port)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    async with tcp_server(talk, tls) as port:
        yield Origin(NAME, port)


async def hangs_until_left(left: asyncio.Event, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while await reader.read(65536):
            pass
    left.set()


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK, 1),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", 1),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", 3),
        (OK.replace(b"\r\n", b"\r\nconnection: close\r\n", 1), 3),
        (OK + b"x", 3),
        (OK + OK, 3),
        (OK.replace(b"\r\n", b"\r\ntransfer-encoding: chunked\r\n", 1), 3),
        (OK.replace(b"\r\n", b"\r\ncontent-length: 3\r\n", 1), 3),
        (OK.replace(b"\r\n", b"\r\nbad name: x\r\n", 1), 3),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 4096, 3),
    ],
)
@on_each_loop
async def test_a_connection_is_used_again_only_after_a_response_with_a_certain_end(
    answer: bytes, connections: int
) -> None:
    async with RawServer(answer, keeps_open=True) as server, pool_of() as pool:
        for _ in range(3):
            assert (await post(pool, origin_of(server))).is_judged
        assert (server.connections, len(server.requests)) == (connections, 3)


@on_each_loop
async def test_no_more_connections_are_in_use_than_the_limit_and_those_who_wait_are_served_in_turn() -> None:
    open_now, most = 0, 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.001)
        open_now -= 1
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    served = []

    async with listening(talk) as origin, pool_of(limit=3) as pool:

        async def post_one(number: int) -> None:
            assert (await post(pool, origin)).status == 200
            served.append(number)

        await asyncio.gather(*(post_one(number) for number in range(30)))
    assert most == 3
    assert all(abs(number - place) < 6 for place, number in enumerate(served))


@pytest.mark.parametrize("stage", ["resolving", "connecting", "the handshake", "the response", "its body", "a place"])
@on_each_loop
async def test_whoever_gives_up_leaves_no_connection_and_no_place_taken(stage: str) -> None:
    left, met = asyncio.Event(), asyncio.Event()
    names = Names("127.0.0.1")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if stage == "its body":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        met.set()
        await hangs_until_left(left, reader, writer)

    tls = ssl.create_default_context() if stage == "the handshake" else None
    async with (
        listening(talk) as origin,
        RawServer(OK, keeps_open=True) as server,
        pool_of(limit=1, tls=tls, names=names) as pool,
        silent_address(origin.port) as silent,
    ):
        if stage == "resolving":
            names.gate.clear()
        names.addresses = (silent,) if stage == "connecting" else ("127.0.0.1",)
        first = asyncio.create_task(post(pool, origin))
        waits = asyncio.create_task(post(pool, origin)) if stage == "a place" else None
        if stage in ("resolving", "connecting"):
            await asyncio.sleep(0.05)
        else:
            async with asyncio.timeout(SOON):
                await met.wait()
        for task in filter(None, (waits, first)):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        if stage not in ("resolving", "connecting"):
            async with asyncio.timeout(SOON):
                await left.wait()
        names.gate.set()
        names.addresses = ("127.0.0.1",)
        if tls is None:
            async with asyncio.timeout(SOON):
                assert (await post(pool, origin_of(server))).status == 200


@asynccontextmanager
async def silent_address(port: int) -> AsyncIterator[str]:
    """An address of this machine that takes no connection to `port`, and refuses none: its backlog is full."""
    address = "127.0.0.2"
    with socket.socket() as server:
        server.bind((address, port))
        server.listen(0)
        held = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect((address, port))
            held.append(client)
        try:
            yield address
        finally:
            for client in held:
                client.close()


@on_each_loop
async def test_a_place_that_was_given_to_whom_gives_up_goes_to_the_next() -> None:
    async with RawServer(OK, keeps_open=True) as server, pool_of(limit=1) as pool:
        origin = origin_of(server)
        held = await pool.acquire(origin)
        gives_up, next_one = (asyncio.create_task(pool.acquire(origin)) for _ in range(2))
        await asyncio.sleep(0)
        pool.give_back(held)
        gives_up.cancel()
        async with asyncio.timeout(SOON):
            pool.give_back(await next_one)
        assert gives_up.cancelled()


@on_each_loop
async def test_a_kept_connection_that_the_server_closed_is_not_used() -> None:
    async with RawServer(OK) as server, pool_of() as pool:
        origin = origin_of(server)
        assert (await post(pool, origin)).status == 200
        await until(lambda: pool.take(origin) is None)
        assert (await post(pool, origin)).status == 200
        assert (server.connections, len(server.requests)) == (2, 2)


@on_each_loop
async def test_a_request_on_a_connection_that_is_closed_meanwhile_is_not_sent_again() -> None:
    requests = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        requests.append(await reader.readuntil(b"\r\n\r\n"))

    async with listening(talk) as origin, pool_of() as pool:
        assert (await post(pool, origin)).status == 200
        reader = await post(pool, origin)
        assert (reader.status, reader.is_judged, reader.is_http, len(requests)) == (None, False, True, 2)


@on_each_loop
async def test_a_connection_that_is_not_used_is_closed() -> None:
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await hangs_until_left(left, reader, writer)

    async with listening(talk) as origin, pool_of(idle_seconds=0.1) as pool:
        started = time.monotonic()
        assert (await post(pool, origin)).status == 200
        async with asyncio.timeout(SOON):
            await left.wait()
        assert time.monotonic() - started > 0.1


@on_each_loop
async def test_no_more_connections_are_kept_than_may_be_in_use() -> None:
    async with (
        RawServer(OK, keeps_open=True) as first,
        RawServer(OK, keeps_open=True) as second,
        pool_of(limit=1) as pool,
    ):
        for server in (first, second, second, first):
            assert (await post(pool, origin_of(server))).status == 200
        assert (first.connections, second.connections) == (2, 1)


@on_each_loop
async def test_what_arrives_on_a_kept_connection_ends_it() -> None:
    more = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await more.wait()
        writer.write(OK)
        await hangs_until_left(left, reader, writer)

    left = asyncio.Event()
    async with listening(talk) as origin, pool_of() as pool:
        assert (await post(pool, origin)).status == 200
        more.set()
        async with asyncio.timeout(SOON):
            await left.wait()
        assert pool.take(origin) is None


@on_each_loop
async def test_what_a_server_sends_before_the_request_is_no_answer_if_it_closes_then() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with listening(talk) as origin, pool_of() as pool:
        connection = await pool.acquire(origin)
        await until(lambda: not connection.is_open)
        with pytest.raises(ClosedUnanswered):
            connection.send(Waiting(connection), b"POST / HTTP/1.1\r\n\r\n", b"")
        pool.give_back(connection)


@on_each_loop
async def test_a_request_is_sent_though_the_server_has_answered_before() -> None:
    requests: asyncio.Queue[bytes] = asyncio.Queue()
    answer = OK.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer[:9])
        await writer.drain()
        writer.write(answer[9:])
        requests.put_nowait(await reader.read())

    async with listening(talk) as origin, pool_of() as pool:
        connection = await pool.acquire(origin)
        await asyncio.sleep(0.05)  # in which the answer arrives
        waiting = Waiting(connection)
        connection.send(waiting, b"POST / HTTP/1.1\r\n\r\n", b"")
        async with asyncio.timeout(SOON):
            await waiting.over.wait()
            assert (connection.reader.status, bytes(connection.reader.body)) == (200, b"ok")
            pool.give_back(connection)
            assert await requests.get() == b"POST / HTTP/1.1\r\n\r\n"


@on_each_loop
async def test_what_a_server_sends_without_being_asked_has_a_bound() -> None:
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1_000_000)
        await hangs_until_left(left, reader, writer)

    async with listening(talk) as origin, pool_of() as pool:
        connection = await pool.acquire(origin)
        async with asyncio.timeout(SOON):
            await left.wait()
        assert not connection.is_open
        pool.give_back(connection)


@pytest.mark.parametrize("secure", [False, True])
@on_each_loop
async def test_a_large_body_arrives_whole_and_others_run_while_it_is_written(secure: bool, tmp_path: Path) -> None:
    body = bytes(range(256)) * (LONG_BODY // 16)
    received = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                received.extend(await reader.readexactly(len(body)))
                writer.write(OK)

    server_tls, client_tls = tls_for(tmp_path) if secure else (None, None)
    async with listening(talk, server_tls) as origin, pool_of(tls=client_tls) as pool:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(take_turns())
        for _ in range(2):
            received.clear()
            assert (await post(pool, origin, body)).status == 200
            assert received == body
        beside.cancel()
    assert turns > 2 * 16


@on_each_loop
async def test_an_answer_before_the_request_is_written_ends_the_connection() -> None:
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        with suppress(OSError):
            await writer.drain()
        await hangs_until_left(left, reader, writer)

    async with listening(talk) as origin, pool_of() as pool:
        reader = await post(pool, origin, b"x" * (64 * LONG_BODY))
        assert (reader.status, bytes(reader.body)) == (413, b"no")
        async with asyncio.timeout(SOON):
            await left.wait()
        assert pool.take(origin) is None


@on_each_loop
async def test_a_connection_whose_request_is_not_sent_whole_is_not_used_again_though_it_was_answered() -> None:
    class Narrow(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            super().connection_made(transport)

    answer, left = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer.wait()
        writer.write(OK)
        await left.wait()

    async with listening(talk) as origin:
        connection = await Dialer(Names("127.0.0.1"), None).dial(
            origin, lambda: Narrow(origin, ResponseReader(9), lambda _: None)
        )
        waiting = Waiting(connection)
        connection.send(waiting, b"POST / HTTP/1.1\r\n\r\n", b"x" * LONG_BODY)
        answer.set()
        async with asyncio.timeout(SOON):
            await waiting.over.wait()
        assert (connection.reader.is_reusable, connection.is_reusable) == (True, False)
        connection.abort()


@on_each_loop
async def test_a_kept_connection_that_was_reset_is_not_used() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as server:
        server.setblocking(False)
        server.bind(("127.0.0.1", 0))
        server.listen()
        async with pool_of() as pool:
            origin = Origin(NAME, server.getsockname()[1])
            posting = asyncio.create_task(post(pool, origin))
            talking, _ = await loop.sock_accept(server)
            await loop.sock_sendall(talking, OK)
            assert (await posting).status == 200
            talking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            talking.close()
            time.sleep(0.05)  # noqa: ASYNC251  # in which the reset arrives, and the event loop does not see it
            for _ in range(2):  # in which the event loop sees the reset, and the pool is not told yet
                await asyncio.sleep(0)
            assert pool.take(origin) is None


@on_each_loop
async def test_the_end_of_a_request_does_not_wait_until_the_server_has_confirmed_its_beginning() -> None:
    options = []

    class Noting(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            options.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    async with listening(answers) as origin:
        connection = await Dialer(Names("127.0.0.1"), None).dial(
            origin, lambda: Noting(origin, ResponseReader(9), lambda _: None)
        )
        connection.abort()
    assert len(options) == 1
    assert options[0]


def tls_for(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server, with a certificate for these names, and for a client that trusts it."""
    file = self_signed(folder, *(names or (NAME,)))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, OSError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)


@on_each_loop
async def test_the_name_of_the_url_is_asked_for_and_verified(tmp_path: Path) -> None:
    asked: list[str | None] = []
    server, client = tls_for(tmp_path, NAME)
    server.sni_callback = lambda _, name, __: asked.append(name)
    async with listening(answers, server) as origin, pool_of(tls=client) as pool:
        for host in (NAME, NAME, f"{NAME}.", "127.0.0.1"):
            assert (await post(pool, Origin(host, origin.port))).status == 200
        with pytest.raises(CertificateRefused) as refused:
            await post(pool, Origin("another.example", origin.port))
        assert "another.example" in refused.value.fault
    assert [name for name in asked if name is not None] == [NAME, NAME, "another.example"]


@on_each_loop
async def test_a_certificate_that_is_not_trusted_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    received = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.append(await reader.read())

    server, _ = tls_for(tmp_path)
    async with listening(talk, server) as origin, pool_of(tls=ssl.create_default_context()) as pool:
        with pytest.raises(CertificateRefused) as refused:
            await post(pool, origin)
    assert refused.value.fault == "self-signed certificate"
    assert received == []


@on_each_loop
async def test_the_next_address_is_tried_when_one_refuses_or_is_silent() -> None:
    async with RawServer(OK) as server, silent_address(server.port) as silent:
        for addresses in (["127.0.0.3", "127.0.0.1"], [silent, "127.0.0.1"], ["127.0.0.3", silent, "127.0.0.1"]):
            async with pool_of(*addresses) as pool, asyncio.timeout(SOON):
                assert (await post(pool, origin_of(server))).status == 200


@on_each_loop
async def test_a_name_with_many_silent_addresses_holds_few_sockets_and_the_last_one_is_reached() -> None:
    most = 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, len(list(Path("/proc/self/fd").iterdir())))
            await asyncio.sleep(0.005)

    async with (
        RawServer(OK) as server,
        silent_address(server.port) as silent,
        pool_of(*[silent] * 40, "127.0.0.1") as pool,
    ):
        with patch("receiver.http_client.dialer._NEXT_ADDRESS_SECONDS", 0.02):
            before = len(list(Path("/proc/self/fd").iterdir()))
            counting = asyncio.create_task(count())
            async with asyncio.timeout(SOON):
                assert (await post(pool, origin_of(server))).status == 200
            counting.cancel()
    assert most - before < 16


@on_each_loop
async def test_the_next_address_is_tried_when_one_has_another_certificate(tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    wrong, _ = tls_for(tmp_path / "wrong", "another.example")
    server, client = tls_for(tmp_path)
    async with listening(answers, server) as origin:
        impostor = await asyncio.start_server(answers, "127.0.0.2", origin.port, ssl=wrong)
        async with pool_of("127.0.0.2", "127.0.0.1", tls=client) as pool:
            assert (await post(pool, origin)).status == 200
        impostor.close()


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2", "127.0.0.3"]])
@on_each_loop
async def test_no_address_that_takes_a_connection(addresses: Sequence[str]) -> None:
    with bound() as held:
        async with pool_of(*addresses, limit=1) as pool:
            for _ in range(3):
                with pytest.raises(ConnectRefused) as refused:
                    await post(pool, Origin(NAME, held.getsockname()[1]))
                assert isinstance(refused.value.cause, ConnectionRefusedError)


@on_each_loop
async def test_a_name_without_an_address() -> None:
    async with pool_of(names=Names()) as pool:
        with pytest.raises(NameUnresolved):
            await post(pool, Origin(NAME, 9))


@on_each_loop
async def test_closing_ends_every_wait() -> None:
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hangs_until_left(left, reader, writer)

    async with listening(talk) as origin, pool_of(limit=1) as pool:
        posting, waiting = (asyncio.create_task(post(pool, origin)) for _ in range(2))
        await asyncio.sleep(0.05)
        await pool.aclose()
        async with asyncio.timeout(SOON):
            with pytest.raises(RuntimeError, match="closed"):
                await waiting
            await left.wait()
            assert not (await posting).is_judged
        with pytest.raises(RuntimeError, match="closed"):
            await pool.acquire(origin)
