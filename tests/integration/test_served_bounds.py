"""The bounds on connections in a process that `ringback serve` started, with bounds from the settings."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.raw_client import RawConnection, raw_connection
from tests.fakes.world import API_KEY, ProcessWorld, in_processes

SETTINGS: dict[str, Any] = {
    "headers_seconds": "0.5",
    "first_byte_seconds": "0.5",
    "body_seconds": "0.5",
    "unread_seconds": "0.5",
    "keepalive_seconds": "60",
    "max_head_bytes": "16384",
    "max_connections_per_address": "8",
    "trusted_proxies": "192.0.2.1",
}
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = f"Host: a\r\nX-API-Key: {API_KEY}\r\n".encode()
BLOCK = b"X-Header: a\r\n" + b"a" * 16_384


def memory(world: ProcessWorld) -> int:
    """Return the resident memory of the service's process, in bytes."""
    assert world.process is not None
    pages = Path(f"/proc/{world.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


async def endless_head(client: RawConnection) -> None:
    """Send a head without an end for as long as the server takes it; it must answer within that."""

    async def send() -> None:
        await client.send(LIVEZ[:-2])
        while not client.writer.transport.is_closing():
            await client.send(BLOCK)

    sending = asyncio.create_task(send())
    try:
        assert (await client.answer())[0] == 431
    finally:
        sending.cancel()
        client.writer.transport.abort()


@pytest.mark.no_database("the server alone")
async def test_attackers_are_disconnected_and_the_others_are_served(tmp_path: Path) -> None:
    async with in_processes(tmp_path, **SETTINGS) as world, AsyncExitStack() as stack:
        url = f"http://127.0.0.1:{world.port}"

        async def connect() -> RawConnection:
            return await stack.enter_async_context(raw_connection(url))

        before = memory(world)
        await asyncio.gather(*[endless_head(await connect()) for _ in range(4)])
        assert memory(world) - before < 30_000_000

        waiting = await connect()  # an honest client: a stream that has nothing to send, for as long as all of this
        await waiting.send(b"GET /api/v1/events HTTP/1.1\r\nAccept: text/event-stream\r\n" + KEY + b"\r\n")
        assert b"200 OK" in await waiting.reader.readuntil(b"from here on\n")

        silent, half, slow = await connect(), await connect(), await connect()
        await half.send(LIVEZ[:-2])
        await slow.send(b"POST /api/v1/task HTTP/1.1\r\nContent-Length: 1000\r\n" + KEY + b"\r\n{")
        assert await silent.ended() == b""
        assert (await half.answer())[0] == 408
        assert (await slow.answer())[0] == 408

        kept = [await connect()]
        await kept[0].send(LIVEZ)
        while (status := (await kept[-1].answer())[0]) == 200 and len(kept) < 10:
            kept.append(await connect())
            await kept[-1].send(LIVEZ)
        assert status == 503  # each of the others was used a moment ago, so none makes room

        metrics = kept[0]
        await metrics.send(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n" + KEY + b"\r\n")
        counters = (await metrics.ended()).decode()
        for reason, number in {"headers late": 1, "body late": 1, "no first byte": 1}.items():
            assert f'ringback_connections_refused_total{{reason="{reason}"}} {number}.0' in counters
        assert 'reason="head too large"} 4.0' in counters
        waiting.writer.transport.abort()
