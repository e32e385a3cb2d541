"""Clients of the dashboard, as browsers are without scripts."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.fakes.pipeline import WAITING
from tests.fakes.rows import eventually
from tests.fakes.world import API_KEY, World

HTML = {"accept": "text/html"}
COOKIE = "ringback_session"
TOKEN = re.compile(r'name="csrf" value="([^"]+)"')
"""The token of the forms of a page."""
_ROW = re.compile(r'data-row="([^"]+)"')


@asynccontextmanager
async def browser(world: World, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client that keeps cookies and sends what a browser does."""
    headers = [*HTML.items(), *options.pop("headers", {}).items()]
    async with httpx.AsyncClient(base_url=world.base, headers=headers, **options) as client:
        yield client


@asynccontextmanager
async def signed_in(world: World, key: str = API_KEY) -> AsyncIterator[httpx.AsyncClient]:
    """Open such a client, with a session."""
    async with browser(world) as client:
        await sign_in(client, key)
        yield client


async def token_of(client: httpx.AsyncClient, path: str = "/sign-in") -> str:
    """Return the token of the forms of a page."""
    found = TOKEN.search((await client.get(path)).text)
    assert found is not None
    return found[1]


async def sign_in(client: httpx.AsyncClient, key: str = API_KEY, prefix: str = "", **fields: str) -> httpx.Response:
    """Send the form with a key."""
    token = await token_of(client, f"{prefix}/sign-in")
    return await client.post(f"{prefix}/sign-in", data={"csrf": token, "key": key, **fields})


async def new_key(world: World, scope: str, **fields: Any) -> dict[str, Any]:
    """Make a key."""
    answer = await world.api.post("/api/v1/keys", json={"name": scope, "scope": scope, **fields})
    return dict(answer.json()["data"])


def rows(page: str) -> list[str]:
    """Return the ids of the rows of a page."""
    return _ROW.findall(page)


async def waiting(world: World, tag: str, number: int) -> list[str]:
    """Create tasks that may be cancelled, and wait until their provider has them."""
    ids = [await world.created(WAITING, metadata={"tag": tag}) for _ in range(number)]
    names = ", ".join(f"'{each}'" for each in ids)
    query = f"SELECT 1 FROM task WHERE uid IN ({names}) AND status = 'pending'"
    await eventually(world, query, lambda rows: len(rows) == number)
    return ids
