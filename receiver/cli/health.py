"""`ringback health`: asks a running service whether it is ready. A container's health check needs no other program."""

import json
import socket
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from receiver.cli.console import echo
from receiver.cli.failure import Failure, Status
from receiver.environment import read_values
from receiver.setting_values import reachable_host, read_base_url, read_listen_address

_EXAMPLE = "http://127.0.0.1:8080"
_MOST_ANSWER_BYTES = 4096
_LONGEST_REASON = 200


def health(
    live: Annotated[
        bool, typer.Option("--live", help="Ask whether it runs (/livez), not whether it can work.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="The service's URL.")] = None,
    uds: Annotated[str | None, typer.Option(metavar="PATH", help="The Unix socket on which it listens.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, max=3600, help="Give up after this time.")] = 5,
) -> None:
    """Ask a running service whether it is ready: its database can be read and written, and it is not stopping.

    Without --url or --uds it asks at RINGBACK_METRICS_ADDRESS, which answers also when the service is busy, else at
    RINGBACK_URL, else where RINGBACK_UDS or RINGBACK_HOST and RINGBACK_PORT say that it listens.
    """
    connection, prefix = _connection(url, uds, timeout)
    status, words = _ask(connection, f"{prefix}/livez" if live else f"{prefix}/readyz")
    if status != HTTPStatus.OK:
        raise Failure(Status.TASK_FAILED, f"not {'live' if live else 'ready'}: {words or f'HTTP {status}'}")
    echo("live" if live else "ready")


class _SocketConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(url: str | None, uds: str | None, timeout: float) -> tuple[HTTPConnection, str]:
    """Return a connection to the service, and the path prefix at which it is there."""
    if uds is not None:
        return _SocketConnection(uds, timeout), ""
    values = {} if url is not None else read_values(None, Path(".env"))
    if (address := values.get("RINGBACK_METRICS_ADDRESS")) is not None:
        return _metrics_connection(address, timeout), ""
    if url is None and "RINGBACK_URL" not in values and "RINGBACK_UDS" in values:
        return _SocketConnection(values["RINGBACK_UDS"], timeout), ""
    name = "RINGBACK_URL" if url is None else "--url"
    try:
        base = urlsplit(read_base_url(values.get("RINGBACK_URL", _own_url(values)) if url is None else url))
    except ValueError as error:
        raise Failure(Status.USAGE, f"{name} {error}, such as {_EXAMPLE}") from None
    host = base.hostname or ""
    if base.scheme == "http":
        return HTTPConnection(host, base.port, timeout=timeout), base.path
    from http.client import HTTPSConnection

    return HTTPSConnection(host, base.port, timeout=timeout), base.path


def _metrics_connection(address: str, timeout: float) -> HTTPConnection:
    try:
        place = read_listen_address(address)
    except ValueError as error:
        raise Failure(Status.USAGE, f"RINGBACK_METRICS_ADDRESS {error}") from None
    if isinstance(place, Path):
        return _SocketConnection(str(place), timeout)
    host, port = place
    return HTTPConnection(reachable_host(host), port, timeout=timeout)


def _own_url(values: Mapping[str, str]) -> str:
    """Return the URL at which a service with these settings listens."""
    host = reachable_host(values.get("RINGBACK_HOST", "127.0.0.1"))
    return f"http://{f'[{host}]' if ':' in host else host}:{values.get('RINGBACK_PORT', '8080')}"


def _ask(connection: HTTPConnection, path: str) -> tuple[int, str]:
    """Return the status of the answer and the reason that it gives. Raises `Failure` if there is none."""
    try:
        connection.request("GET", path, headers={"connection": "close"})
        answer = connection.getresponse()
        return answer.status, _reason(answer.read(_MOST_ANSWER_BYTES))
    except TimeoutError:
        reason = f"no answer within {connection.timeout:g} s"
    except OSError as error:
        reason = f"it cannot be reached ({error.strerror or type(error).__name__})"
    except HTTPException:
        reason = "what answers there is not Ringback"
    finally:
        connection.close()
    raise Failure(Status.TASK_FAILED, reason)


def _reason(body: bytes) -> str:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    reason = document.get("reason") if isinstance(document, dict) else None
    return reason[:_LONGEST_REASON] if isinstance(reason, str) else ""
