"""Servers on loopback that answer with any bytes: `RawServer` the same to each request, `tcp_server` by a function."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class RawServer:
    """Answers every request with `answer`, in pieces of `piece` bytes if that is given; then closes the connection.

    With `forever` it sends these bytes after the answer again and again until the client closes the connection. With
    `keeps_open` it waits for the next request instead of closing. A request that begins with `dies_at` is read and not
    answered: the connection is closed. Use it as an async context manager.
    """

    def __init__(
        self,
        answer: bytes,
        *,
        forever: bytes = b"",
        piece: int | None = None,
        keeps_open: bool = False,
        dies_at: bytes | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        """The head and body of each request, as they arrived."""
        self.connections = 0
        self.port = 0
        self.written = 0
        self.answered = asyncio.Event()
        """Set when the first answer is written."""
        self.hung_up = asyncio.Event()
        """Set when a client has closed its connection while bytes were sent `forever`."""
        self._answer = answer
        self._forever = forever
        self._piece = piece
        self._keeps_open = keeps_open
        self._dies_at = dies_at
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def url(self, target: str) -> str:
        """Return the URL with this path and query."""
        return f"http://127.0.0.1:{self.port}{target}"

    @property
    def request_lines(self) -> list[bytes]:
        """The first line of each request."""
        return [request.partition(b"\r\n")[0] for request in self.requests]

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._conversations.add(asyncio.create_task(self._converse(reader, writer)))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.requests.append(await read_request(reader))
                if self._dies_at is not None and self.requests[-1].startswith(self._dies_at):
                    return
                await self._write(writer, self._answer)
                self.answered.set()
                while self._forever:
                    await self._write(writer, self._forever)
                if not self._keeps_open:
                    return
        except (OSError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = self._piece or max(1, len(data))
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        self.written += len(data)


@asynccontextmanager
async def tcp_server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server that sends what `talk` sends, and then closes; yields its port."""
    conversations: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.create_task(converse(reader, writer)))

    server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request; return its head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length is not None else b"")
