"""The head of a response and the first part of its body, written at once."""

import asyncio
from typing import Any

_LENGTH = b"\r\ncontent-length: "
"""What a head has whose body follows at once. That of a stream, which may wait for its first part, has no length; who
tells the length and waits has to send an empty part first (`receiver.api.passthrough`)."""
_INFORMATIONAL = b"HTTP/1.1 1"
_LONG_BODY = 64 * 1024
"""Bytes. A longer part of a body is not copied to be joined."""


class JoinedHead:
    """Stands before a connection's transport for one response.

    uvicorn writes head and body one after the other. Each write is a system call and a packet, and wakes the client: of
    a small response that is a large part of the cost.
    """

    __slots__ = ("_awaits_head", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._awaits_head = True
        self._head = b""

    def write(self, data: bytes) -> None:
        """Write a part of the response; keep a head until the body's first part, which may be empty."""
        if self._awaits_head:
            self._awaits_head = data.startswith(_INFORMATIONAL)
            if _LENGTH in data:
                self._head = data
                return
        elif self._head:
            if len(data) <= _LONG_BODY:
                data = self._head + data
            else:
                self._transport.write(self._head)
            self._head = b""
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection when all is sent."""
        self.without().close()

    def without(self) -> asyncio.Transport:
        """Send what is kept; return the transport itself, for a response that is to hold as little as it can."""
        if self._head and not self._transport.is_closing():
            self.write(b"")
        return self._transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
