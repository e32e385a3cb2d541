"""Two services on one PostgreSQL: each learns how much the other uses of the limits that both keep to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from receiver.app import create_app
from receiver.domain.limit_parts import Part
from receiver.serving.master_keys import master_keys
from tests.fakes.rows import select
from tests.fakes.servers import served
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.postgresql_only("SQLite has one process")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with in_process(tmp_path) as world:
        yield world


@pytest.fixture
async def part(world: World) -> AsyncIterator[Part]:
    """The parts that a second service on the same database has."""
    app = create_app(world.settings, master_keys(world.settings))
    async with served(app):
        yield app.state.services.database.part


async def shared(use: Callable[[], Awaitable[object]], part: Part, name: str) -> None:
    """Use a limit at the first service until the second, which wants some too, leaves it most. Raises TimeoutError."""
    async with asyncio.timeout(30):
        # Before it knows of the other's use it has an equal part, or all of it.
        while not 0.05 <= part(name, 0.5) < 0.4:
            await use()


async def test_the_other_service_knows_how_busy_a_key_is(world: World, part: Part) -> None:
    made = (await world.api.post("/api/v1/keys", json={"name": "k", "rate_limit": 40})).json()["data"]
    (row,) = select(world, "SELECT id FROM api_key WHERE uid = ?", made["id"])
    headers = {"x-api-key": made["key"]}

    async def use() -> None:
        await asyncio.gather(*(world.api.get("/api/v1/tasks?limit=1", headers=headers) for _ in range(10)))

    await shared(use, part, f"key:{row['id']}")


async def test_the_other_service_knows_how_busy_a_webhook_is(world: World, part: Part) -> None:
    made = await world.webhook(rate_limit=1000, max_in_flight=8)
    (row,) = select(world, "SELECT id FROM subscription WHERE uid = ?", made["id"])
    await shared(world.created, part, f"webhook-rate:{row['id']}")
    await shared(world.created, part, f"webhook-in-flight:{row['id']}")
