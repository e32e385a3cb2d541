"""A stop: connections that wait to be accepted are answered, and it ends within its bound whatever hangs."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from receiver.serving.handshakes import refuse_handshakes
from receiver.serving.server import Server, ServerStop, server_config
from receiver.serving.worker import HAND_OVER
from receiver.stop_bound import END, REQUESTS, WORK, StopBound
from tests.fakes.front_door import FrontDoor

pytestmark = pytest.mark.no_database("the server alone")

GET = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"
ESTABLISHED, SYN_SENT = 1, 2
"""States of a TCP connection (`TCP_INFO`)."""
COUNT = 150
"""More connections than are accepted in one turn of the loop."""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=COUNT) as made:
        yield made


def requested(address: tuple[str, int]) -> socket.socket:
    """Connect, and send a request; the kernel does it without the server."""
    made = socket.create_connection(address, timeout=20)
    made.sendall(GET)
    return made


def answered(made: socket.socket) -> bytes:
    """Return all that comes until the end of the connection."""
    received = b""
    with made:
        while part := made.recv(65_536):
            received += part
    return received


async def stopped(
    monkeypatch: pytest.MonkeyPatch,
    listening: socket.socket,
    at_stop: Callable[[], None],
    which: signal.Signals = signal.SIGTERM,
) -> None:
    """Serve on a socket, and stop at once; `at_stop` is called when the stop begins, before the loop goes on."""
    monkeypatch.setattr(signal, "raise_signal", lambda _number: None)  # uvicorn raises those again that it obeyed
    stop = ServerStop(StopBound(), end_waits=at_stop, linger_seconds=0.3, accept_seconds=0.6)
    server = Server(server_config(FrontDoor()), stop, on_ready=lambda: server.handle_exit(which, None))
    await server.serve(sockets=[listening])


async def test_connections_that_wait_to_be_accepted_are_answered_and_closed(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    address, made = listening.getsockname(), list[socket.socket]()

    def connect() -> None:
        if not made:
            made.extend(requested(address) for _ in range(COUNT))

    await stopped(monkeypatch, listening, connect)
    answers = [answered(each) for each in made]
    assert Counter(answer.split(b"\r\n")[0] for answer in answers) == {b"HTTP/1.1 200 OK": COUNT}
    assert all(b"connection: close" in answer for answer in answers)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_where_connections_never_cease_the_stop_goes_on_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    address, results = listening.getsockname(), list[bytes]()

    def ask() -> None:
        while True:
            try:
                made = requested(address)
            except ConnectionRefusedError:
                return
            results.append(answered(made).split(b"\r\n")[0])

    asking = [threading.Thread(target=ask) for _ in range(4)]

    def start() -> None:
        for each in asking:
            if each.ident is None:
                each.start()

    await stopped(monkeypatch, listening, start)
    for each in asking:
        each.join(20)
        assert not each.is_alive()
    assert set(results) == {b"HTTP/1.1 200 OK"}


async def test_a_server_whose_successor_has_the_socket_leaves_what_waits_to_it(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    with listening.dup() as of_successor:
        made = list[socket.socket]()

        def connect() -> None:
            if not made:
                made.append(requested(listening.getsockname()))

        await stopped(monkeypatch, listening, connect, HAND_OVER)
        of_successor.setblocking(True)
        accepted, _ = of_successor.accept()
        with accepted, made[0]:
            assert accepted.recv(1000) == GET


@pytest.mark.skipif(sys.platform != "linux", reason="a packet filter of Linux")
def test_a_filter_lets_no_further_connection_begin_and_keeps_those_that_wait(listening: socket.socket) -> None:
    def connecting() -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        made.connect_ex(listening.getsockname())
        return made

    def state(of: socket.socket) -> int:
        return of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    with connecting() as before:
        assert refuse_handshakes(listening)
        with connecting() as after:
            assert (state(before), state(after)) == (ESTABLISHED, SYN_SENT)
            before.sendall(GET)
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.recv(1000) == GET


def test_the_parts_of_a_stop_are_within_its_bound_and_a_lame_duck_is_one_of_them() -> None:
    now = 100.0
    bound = StopBound(30.0, 10.0, now=lambda: now)
    assert not bound.is_lame
    bound.begin(lame=True)
    assert [bound.seconds_until(share) for share in (REQUESTS, WORK, END)] == [22.0, 27.0, 29.0]
    now = 109.0
    bound.begin(lame=True)
    assert bound.is_lame
    now = 110.0
    assert not bound.is_lame
    assert bound.seconds_until(WORK) == 17.0
    now = 200.0
    assert bound.seconds_until(END) == 0.0


def test_a_process_that_something_holds_ends_when_the_time_of_the_stop_is_over() -> None:
    program = """
import threading
from receiver.serving.process import end_in_time
from receiver.stop_bound import StopBound

bound = StopBound(0.1)
threading.Thread(target=end_in_time, args=(bound,), daemon=True).start()
bound.begin()
threading.Event().wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert "RINGBACK_STOP_SECONDS" in ended.stdout


async def test_a_signal_while_the_application_starts_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signal, "raise_signal", lambda _number: None)
    waits = asyncio.Event()

    async def app(_scope: object, _receive: object, _send: object) -> None:
        waits.set()
        await asyncio.Event().wait()

    server = Server(server_config(app, lifespan="on"), ServerStop(StopBound()))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await waits.wait()
    server.handle_exit(signal.SIGTERM, None)
    async with asyncio.timeout(20):
        await serving
    assert not server.started
    assert not caplog.records
