"""Fixtures of the adapter's tests: a PiAPI on loopback, and the adapter that calls it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from receiver.providers.piapi import PiAPI
from tests.integration.scripted_piapi import FakeServer, opened


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServer]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    fake = FakeServer()
    listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield fake
        await fake.finish()


@pytest.fixture
async def piapi(server: FakeServer) -> AsyncIterator[PiAPI]:
    async with opened(server.url) as adapter:
        yield adapter
