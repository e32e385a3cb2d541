"""Where the service listens: Unix sockets, passed sockets, IPv6 and IPv4; and what systemd is told of it."""

import asyncio
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from receiver.errors import StartError
from receiver.serving.notify import Notifier
from receiver.serving.sockets import passed_socket, tcp_listening, unix_listening
from tests.fakes.command import CLEAN, run_command
from tests.fakes.servers import served
from tests.integration.test_start_signals import BOUND_SECONDS, SERVE

pytestmark = pytest.mark.sqlite_only("sockets and processes alone")

PASSING = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Starts a program as systemd does: with its own process id beside the number of sockets."""


class Notified:
    """A socket that is notified as systemd is."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(BOUND_SECONDS)

    def until(self, line: str) -> list[str]:
        """Return the lines of the next message that has this one."""
        while line not in (lines := self._socket.recv(4096).decode().split("\n")):
            pass
        return lines

    def said(self) -> list[str]:
        """Return the messages that are there already."""
        found = []
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(4096).decode())
        self._socket.settimeout(BOUND_SECONDS)
        return found

    def close(self) -> None:
        self._socket.close()


@contextmanager
def started(*command: str, folder: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, **more)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_sockets_that_systemd_passes_are_served_by_their_names_and_it_is_told_of_each_step(tmp_path: Path) -> None:
    path = str(tmp_path / "service.sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as metrics,
        unix_listening(Path(path), "--uds") as service,
        closing(Notified(f"\0ringback-{os.getpid()}")) as notified,
    ):
        numbers = [os.dup(each.fileno()) for each in (metrics, service)]
        environment = {
            **CLEAN,
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": "metrics:service",
            "NOTIFY_SOCKET": f"@ringback-{os.getpid()}",
            "WATCHDOG_USEC": "1000000",
            "RINGBACK_API_KEY": "rb_sockets_Wm3xKq8ZvT5rYc7L",
        }
        place = "import os, sys; os.dup2({}, 90); os.dup2({}, 91); os.dup2(90, 3); os.dup2(91, 4)".format(*numbers)
        program = (sys.executable, "-c", f"{place}\n{PASSING}", *SERVE[1:])
        with started(*program, folder=tmp_path, env=environment, pass_fds=numbers) as process:
            assert "STATUS=serving" in notified.until("READY=1")
            assert notified.until("WATCHDOG=1")
            with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://service") as client:
                assert client.get("/readyz").status_code == 200
                assert client.get("/metrics").status_code == 404
            assert httpx.get(f"http://127.0.0.1:{metrics.getsockname()[1]}/metrics").status_code == 200
            process.send_signal(signal.SIGHUP)
            assert any(line.startswith("MONOTONIC_USEC=") for line in notified.until("RELOADING=1"))
            notified.until("READY=1")
            process.send_signal(signal.SIGTERM)
            notified.until("STOPPING=1")
            assert process.wait(BOUND_SECONDS) == 0
        for number in numbers:
            os.close(number)
        assert Path(path).exists()  # it is not the service's own


async def test_a_loop_that_is_held_says_nothing_to_the_watchdog(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with closing(Notified(path)) as notified:
        notifier, answers = Notifier(path, 0.02), True
        notifier.watch(lambda _seconds: answers)
        notified.until("WATCHDOG=1")
        assert notified.said() == []  # this test holds the loop
        await asyncio.to_thread(notified.until, "WATCHDOG=1")
        answers = False
        notified.said()
        asked = asyncio.Event()

        def refuse(_seconds: float) -> bool:
            asked.set()
            return False

        notifier.watch(refuse)
        await asked.wait()
        assert notified.said() == []
        notifier.watchdog_seconds = None


async def client_of(request: Request) -> Response:
    return JSONResponse(request.client.host if request.client else None)


@pytest.mark.parametrize("kind", ["unix", "IPv4 over IPv6"])
async def test_a_proxy_on_this_machine_is_believed_whose_client_it_is(tmp_path: Path, kind: str) -> None:
    if kind == "unix":
        place, transport = unix_listening(tmp_path / "s", "--uds"), httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))
    else:
        place, transport = tcp_listening("::", 0, "--port"), httpx.AsyncHTTPTransport()
    app = ProxyHeadersMiddleware(Router([Route("/", client_of)]), "127.0.0.1,unix")  # type: ignore[arg-type]
    with place as listening:
        port = 80 if kind == "unix" else listening.getsockname()[1]
        async with (
            served(app, listening),  # type: ignore[arg-type]
            httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}") as client,
        ):
            assert (await client.get("/")).json() == ("unix" if kind == "unix" else "127.0.0.1")
            assert (await client.get("/", headers={"x-forwarded-for": "192.0.2.7"})).json() == "192.0.2.7"


def test_a_unix_socket_has_its_mode_and_only_its_maker_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "service.sock"
    with unix_listening(path, "--uds", 0o600):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        with pytest.raises(StartError, match="another process"), unix_listening(path, "--uds"):
            pass
        path.unlink()
        path.write_text("of another")
    assert path.read_text() == "of another"


def test_what_cannot_be_listened_at_is_told_in_one_line_that_names_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = [
            (tcp_listening("127.0.0.1", taken.getsockname()[1], "--port"), "in use.*another --port"),
            (unix_listening(tmp_path / ("x" * 200), "--uds"), "at most 107; name another --uds"),
            (unix_listening(tmp_path / "none" / "s", "--uds"), "No such file.*another --uds"),
        ]
        for listening, words in cases:
            with pytest.raises(StartError, match=words) as refused, listening:
                pass
            assert "\n" not in refused.value.message


def test_a_port_for_which_there_is_no_permission_names_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(StartError, match="CAP_NET_BIND_SERVICE"), tcp_listening("127.0.0.1", 80, "--port"):
        pass


def test_only_a_listening_socket_may_be_passed(tmp_path: Path) -> None:
    with (
        (tmp_path / "file").open("w") as file,
        socket.socket() as unbound,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        for each in (file, unbound, udp):
            with pytest.raises(StartError, match="pass one that listens"):
                passed_socket(each.fileno())
            os.fstat(each.fileno())  # it is not closed


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        (("--uds", "s", "--port", "1"), {}, "--host and --port and --uds exclude each other"),
        (("--fd", "3", "--uds", "s"), {}, "--uds and --fd exclude each other"),
        ((), {"RINGBACK_UDS": "s", "RINGBACK_PORT": "1"}, "RINGBACK_UDS: excludes"),
        ((), {"RINGBACK_PORT": "eighty"}, "RINGBACK_PORT:"),
        ((), {"RINGBACK_TRUSTED_PROXIES": "10.0.0.0/33,foo"}, "RINGBACK_TRUSTED_PROXIES:"),
    ],
)
async def test_two_places_and_what_is_none_are_refused(
    tmp_path: Path, options: tuple[str, ...], more: dict[str, str], words: str
) -> None:
    status, _, err = await run_command("serve", *options, folder=tmp_path, environment={**CLEAN, **more})
    assert (status, words in err) == (2, True), err
