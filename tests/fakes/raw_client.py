"""A client on a raw socket, for what no HTTP client would send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_SECONDS = 20.0


class RawConnection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send, and wait until it is on its way. A reset is no matter here: the answer tells."""
        try:
            self.writer.write(data)
            await self.writer.drain()
            await asyncio.sleep(0)  # or a server in the same loop would never run
        except ConnectionError:
            pass

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body, of known length, of the next answer."""
        async with asyncio.timeout(_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers, body

    async def ended(self) -> bytes:
        """Return all that comes until the server ends the connection, in whatever way."""
        received = bytearray()
        async with asyncio.timeout(_SECONDS):
            try:
                while part := await self.reader.read(65_536):
                    received += part
            except ConnectionError:
                pass
        return bytes(received)


@asynccontextmanager
async def raw_connection(url: str) -> AsyncIterator[RawConnection]:
    """Connect to the server at `url`."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.transport.abort()
