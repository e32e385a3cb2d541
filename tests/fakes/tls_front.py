"""A server on loopback that speaks PostgreSQL's TLS in front of one that listens on a socket without it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_REQUEST_BYTES = 8
"""The length of the message by which a client asks for TLS."""


@asynccontextmanager
async def tls_front(certificate: Path | None, socket: Path) -> AsyncIterator[int]:
    """Serve with a certificate (None: refuse TLS, as a server without it does); yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(_REQUEST_BYTES)
            writer.write(b"N" if certificate is None else b"S")
            await writer.drain()
            if certificate is not None:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(certificate)
                await writer.start_tls(context)
                behind, before = await asyncio.open_unix_connection(socket)
                await asyncio.gather(_copy(reader, before), _copy(behind, writer))
        except (OSError, EOFError):
            pass  # the client does not want this server
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
