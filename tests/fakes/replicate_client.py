"""The public `replicate` client, unchanged, with another address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replicate.client import Client


@asynccontextmanager
async def connected(base: str, key: str) -> AsyncIterator[Client]:
    """Yield the client as its users make it. It leaves its connections open, which a test may not."""
    client = Client(api_token=key, base_url=base)
    client.poll_interval = 0.02
    try:
        yield client
    finally:
        client._client.close()
        await client._async_client.aclose()
