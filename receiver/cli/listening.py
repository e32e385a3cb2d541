"""Where a command that serves listens."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from receiver.cli.failure import Failure, Status
from receiver.environment import take_passed_sockets
from receiver.errors import StartError
from receiver.serving.sockets import passed_socket, shown, tcp_listening, unix_listening

if TYPE_CHECKING:
    from receiver.settings import Settings

_METRICS = "metrics"
"""The name of a passed socket for metrics and health (`FileDescriptorName=`); any other one is the service's."""


@contextmanager
def listen(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Listen until the context ends; yield the socket and its URL. Raises `Failure`.

    Connections are accepted by the kernel from the start: a client that connects before the server runs is served.
    """
    try:
        with tcp_listening(host, port, "--port") as listening:
            yield listening, shown(listening)
    except StartError as error:
        raise Failure(Status.UNREACHABLE, error.message) from None


class PassedSockets(Struct, frozen=True):
    """The file descriptors of the sockets that systemd has passed, for the service and for metrics."""

    service: int | None = None
    metrics: int | None = None

    @classmethod
    def take(cls) -> "PassedSockets":
        """Return them. Raises `Failure` if there are several for one purpose."""
        passed = take_passed_sockets()
        metrics = [number for number, name in passed.items() if name == _METRICS]
        service = [number for number, name in passed.items() if name != _METRICS]
        if len(metrics) > 1 or len(service) > 1:
            raise Failure(
                Status.USAGE,
                f"systemd passes {len(service)} sockets for the service and {len(metrics)} for metrics; "
                "it serves on one of each",
            )
        return cls(*(numbers[0] if numbers else None for numbers in (service, metrics)))


class ServiceAddress(Struct, frozen=True):
    """Where the service is to listen, as options say; None is not said."""

    host: str | None = None
    port: int | None = None
    uds: Path | None = None
    fd: int | None = None

    def check(self, passed: PassedSockets) -> None:
        """Raise `Failure` if more than one place is named."""
        options = {
            "--host and --port": self.host is not None or self.port is not None,
            "--uds": self.uds is not None,
            "--fd": self.fd is not None,
        }
        named = [option for option, is_named in options.items() if is_named]
        if len(named) > 1:
            raise Failure(Status.USAGE, f"{' and '.join(named)} exclude each other; give one of them")
        if named and passed.service is not None:
            raise Failure(Status.USAGE, f"systemd passes the socket to listen on; remove {named[0]}")

    @contextmanager
    def listening(self, settings: "Settings", passed: PassedSockets) -> Iterator[socket.socket]:
        """Listen until the context ends. Options come before settings. Raises `StartError`."""
        fd = passed.service if self.fd is None else self.fd
        if fd is not None:
            with passed_socket(fd) as listening:
                yield listening
            return
        is_tcp = self.host is not None or self.port is not None
        uds = self.uds or (None if is_tcp else settings.uds)
        if uds is not None:
            with unix_listening(uds, "--uds", settings.uds_permissions) as listening:
                yield listening
            return
        host = self.host or settings.host or "127.0.0.1"
        port = next(each for each in (self.port, settings.port, 8080) if each is not None)
        with tcp_listening(host, port, "--port") as listening:
            yield listening
