"""Listening sockets: on TCP, at the path of a Unix socket, or passed by the process that started this one."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from receiver.errors import StartError

SOCKET_MODE = 0o660
"""The group may connect to a Unix socket too: a proxy often runs as another user."""
_LONGEST_PATH = 107
"""In bytes: what the address of a Unix socket has room for (`unix(7)`)."""
_ANY_IPV6 = "::"


@contextmanager
def tcp_listening(host: str, port: int, option: str) -> Iterator[socket.socket]:
    """Listen until the context ends; `::` is every address of IPv6 and IPv4. Raises `StartError`.

    `option` is what an operator sets the port with.
    """
    try:
        listening = _tcp_socket(host, port)
    except OSError as error:
        advice = f"choose another {option}"
        if error.errno == errno.EACCES:
            advice = f"choose a {option} above 1023, or give the process CAP_NET_BIND_SERVICE"
        raise StartError(f"cannot listen on {host} port {port} ({error.strerror}); {advice}") from None
    with listening:
        yield listening


@contextmanager
def unix_listening(path: Path, option: str, mode: int = SOCKET_MODE) -> Iterator[socket.socket]:
    """Listen at a path until the context ends, in place of a socket that a process left there which has ended.

    Only the socket that was made here is removed at the end. Raises `StartError`.
    """
    if (size := len(os.fsencode(path))) > _LONGEST_PATH:
        raise StartError(
            f"{path} has {size} bytes, and the path of a Unix socket at most {_LONGEST_PATH}; name another {option}"
        )
    try:
        _remove_left_socket(path, option)
        listening = _unix_socket(path, mode)
    except OSError as error:
        raise StartError(f"cannot listen at {path} ({error.strerror}); name another {option}") from None
    made = path.lstat()
    with listening:
        yield listening
    with suppress(OSError):
        if os.path.samestat(made, path.lstat()):
            path.unlink()


def passed_socket(number: int) -> socket.socket:
    """Return the listening socket that this process was started with as a file descriptor. Raises `StartError`."""
    try:
        listening = socket.socket(fileno=number)
    except OSError as error:
        raise StartError(f"file descriptor {number} is no socket ({error.strerror}); pass one that listens") from None
    if listening.type != socket.SOCK_STREAM or not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listening.detach()
        raise StartError(f"file descriptor {number} is no listening stream socket; pass one that listens")
    listening.set_inheritable(False)
    _send_at_once(listening)
    return listening


def shown(listening: socket.socket) -> str:
    """Return the address of a listening socket as a person reads it: a URL, or `unix:` and the path."""
    address = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{address}"
    return f"http://[{address[0]}]:{address[1]}" if ":" in address[0] else f"http://{address[0]}:{address[1]}"


def _tcp_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_dual = host == _ANY_IPV6 and socket.has_dualstack_ipv6()
    listening = socket.create_server((host, port), family=family, dualstack_ipv6=is_dual)
    _send_at_once(listening)
    return listening


def _send_at_once(listening: socket.socket) -> None:
    # asyncio sets this itself only on sockets whose protocol is given as TCP; for these it is 0, the default.
    if listening.family in (socket.AF_INET, socket.AF_INET6):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _unix_socket(path: Path, mode: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o777 & ~mode)
    try:
        listening.bind(str(path))
        listening.listen()
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def _remove_left_socket(path: Path, option: str) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise StartError(f"another process listens at {path}; name another {option}")
