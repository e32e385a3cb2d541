"""A DNS server on loopback: every name has the address 127.0.0.1, but for those that it has other answers for."""

import asyncio
import socket
import struct
from typing import Self

_ADDRESS = 1
"""The type of a query for an IPv4 address."""
_NO_ERROR, _SERVER_FAILURE, _NO_SUCH_NAME = 0, 2, 3


class DnsServer(asyncio.DatagramProtocol):
    """Answers by the first label of a name, up to a hyphen.

    `silent` gets no answer, `unknown` that there is no such name, `broken` that the server failed; `empty` has no
    address, and `many` has a hundred. Use it as an async context manager.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        """The names of the queries for IPv4 addresses, in the order of their arrival."""
        self.silent = asyncio.Event()
        """Set when a query has arrived that gets no answer."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    @property
    def servers(self) -> list[str]:
        """The server, as `receiver.lookups.queries.Queries` takes it."""
        return [f"127.0.0.1:{self._transport.get_extra_info('sockname')[1]}"]

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """Answer a query."""
        name, end = _name(data)
        kind = int.from_bytes(data[end : end + 2])
        if kind == _ADDRESS:
            self.asked.append(name)
        first = name.partition(".")[0].partition("-")[0]
        if first == "silent":
            self.silent.set()
            return
        code = {"unknown": _NO_SUCH_NAME, "broken": _SERVER_FAILURE}.get(first, _NO_ERROR)
        count = {"empty": 0, "many": 100}.get(first, 1) if kind == _ADDRESS and code == _NO_ERROR else 0
        answers = b"".join(_answer(number) for number in range(count))
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, count, 0, 0)
        self._transport.sendto(head + data[12 : end + 4] + answers, addr)


def _name(query: bytes) -> tuple[str, int]:
    """Return the name of a query and the position after it."""
    labels, position = [], 12
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode())
        position += 1 + length
    return ".".join(labels).lower(), position + 1


def _answer(number: int) -> bytes:
    return b"\xc0\x0c" + struct.pack(">HHIH", _ADDRESS, 1, 3600, 4) + socket.inet_aton(f"127.0.0.{1 + number}")
