"""A most of connections, in all and from one address; what is idle makes room; descriptors that run out."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.connections import ClientNetwork, Connections
from receiver.serving.refusals import TOO_MANY_OF_ADDRESS
from tests.fakes.front_door import FrontDoor, front_door
from tests.fakes.raw_client import RawConnection, raw_connection

pytestmark = pytest.mark.no_database("the server alone")

GET = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
BOUNDS: dict[str, dict[str, Any]] = {
    "in all": {"max_connections": 3},
    "from an address": {"max_connections_per_address": 3, "trusted_proxies": "192.0.2.1"},
}


async def busy(stack: AsyncExitStack, door: FrontDoor) -> RawConnection:
    """Return a connection with a request in progress."""
    client = await stack.enter_async_context(raw_connection(door.url))
    seen = len(door.requests)
    await client.send(WAIT)
    async with asyncio.timeout(10):
        while len(door.requests) == seen:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.005)
    return client


@pytest.mark.parametrize("bound", BOUNDS)
async def test_a_connection_beyond_the_bound_gets_503_and_the_others_are_served(bound: str) -> None:
    async with front_door(**BOUNDS[bound]) as door, AsyncExitStack() as stack:
        clients = [await busy(stack, door) for _ in range(3)]
        async with raw_connection(door.url) as further:
            status, headers, _ = await further.answer()
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "5")
            assert await further.ended() == b""
        clients.pop().writer.transport.abort()
        assert await door.disconnects.get() == "/wait"
        async with raw_connection(door.url) as another:
            await another.send(GET)
            assert (await another.answer())[0] == 200
        door.gate.set()
        assert [(await client.answer())[0] for client in clients] == [200, 200]


@pytest.mark.parametrize("bound", BOUNDS)
async def test_the_connection_that_has_been_idle_for_longest_makes_room(bound: str) -> None:
    async with front_door(**BOUNDS[bound]) as door, AsyncExitStack() as stack:
        await busy(stack, door)
        silent = await stack.enter_async_context(raw_connection(door.url))
        kept = await stack.enter_async_context(raw_connection(door.url))
        await kept.send(GET)
        assert (await kept.answer())[0] == 200
        await silent.send(GET)  # so that now `kept` is the oldest
        assert (await silent.answer())[0] == 200
        async with raw_connection(door.url) as early:  # nothing has been idle for long enough
            assert (await early.answer())[0] == 503
        await asyncio.sleep(0.6)
        async with raw_connection(door.url) as further:
            await further.send(GET)
            assert (await further.answer())[0] == 200
            assert await kept.ended() == b""
            await silent.send(GET)
            assert (await silent.answer())[0] == 200


async def test_a_trusted_proxy_has_no_bound_of_its_own() -> None:
    async with (
        front_door(max_connections_per_address=1, trusted_proxies="127.0.0.0/8") as door,
        AsyncExitStack() as stack,
    ):
        for _ in range(4):
            await busy(stack, door)


def test_the_bound_of_an_address_is_for_64_bits_of_ipv6_and_one_address_of_ipv4() -> None:
    def name(host: str) -> str:
        network = Connections(ConnectionLimits(trusted_proxies="10.0.0.0/8,2001:db8:9::1")).admit(host)
        assert isinstance(network, ClientNetwork)
        return network.name

    assert name("2001:db8::1") == name("2001:db8::ffff:1") == name("2001:db8::1%eth0")
    assert name("2001:db8::1") != name("2001:db8:0:1::1")
    assert name("192.0.2.1") == name("::ffff:192.0.2.1") != name("192.0.2.2")
    assert {name("10.1.2.3"), name("::ffff:10.1.2.3"), name("2001:db8:9::1"), name("")} == {"trusted proxies"}


async def test_what_ended_is_not_counted_and_not_remembered() -> None:
    connections = Connections(ConnectionLimits(max_connections_per_address=2))
    for number in range(1000):
        host = f"198.51.100.{number % 200}"
        networks = [connections.admit(host), connections.admit(host)]
        assert connections.admit(host) is TOO_MANY_OF_ADDRESS
        for network in networks:
            assert isinstance(network, ClientNetwork)
            connections.dismiss(network)
    assert connections._networks == {}


@contextmanager
def file_limit(more: int) -> Iterator[None]:
    """Let this process open only this number of files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, hard))
    fillers = []
    try:
        while True:  # the lower numbers that are free
            fillers.append(socket.socket())
    except OSError:
        for _ in range(min(more, len(fillers))):
            fillers.pop().close()
    try:
        yield
    finally:
        for each in fillers:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_descriptors_that_run_out_are_logged_once_and_the_service_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with front_door() as door:
        sockets = [socket.socket() for _ in range(6)]
        for each in sockets:
            each.setblocking(False)
        loop = asyncio.get_running_loop()
        address = ("127.0.0.1", int(door.url.rpartition(":")[2]))
        with file_limit(2):
            for each in sockets:
                await loop.sock_connect(each, address)
                await loop.sock_sendall(each, WAIT)
            async with asyncio.timeout(10):
                while "no file descriptor left" not in capsys.readouterr().err:  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.6)  # it tries again, twice
        err = capsys.readouterr().err
        assert "no file descriptor left" not in err
        assert "Traceback" not in err
        door.gate.set()
        async with asyncio.timeout(10):
            for each in sockets:  # also those that waited
                assert (await loop.sock_recv(each, 1000)).startswith(b"HTTP/1.1 200")
                each.close()


async def test_the_kernel_is_asked_to_find_peers_that_are_gone() -> None:
    async with front_door() as door, raw_connection(door.url) as client:
        await client.send(GET)
        await client.answer()
        (connection,) = door.connections.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 90_000
