"""A minimal HTTP server in the bench's event loop: it costs so little that the figures show the cost of its clients."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

Handler = Callable[[bytes], bytes | None]
"""Takes a whole request and returns the whole response; None means that the client never receives one."""


def http_response(body: bytes = b"", status: str = "200 OK") -> bytes:
    """Return a whole HTTP response; a body is JSON."""
    kind = "content-type: application/json\r\n" if body else ""
    return f"HTTP/1.1 {status}\r\n{kind}content-length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def serving(handler: Handler, *, port: int = 0) -> AsyncIterator[str]:
    """Serve requests on a loopback port, by default a free one; yield the URL."""
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(handler), "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._end()) is not None:
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            response = self._handler(request)
            if response is not None:
                self._transport.write(response)

    def _end(self) -> int | None:
        """Return where the first request in the buffer ends; None if it is not complete yet."""
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return None
        at = self._buffer[:head].lower().find(b"content-length:")
        length = int(self._buffer[at + 15 : head].split(b"\r", 1)[0]) if at >= 0 else 0
        return head + 4 + length if len(self._buffer) >= head + 4 + length else None
