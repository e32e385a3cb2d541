"""PostgreSQL is gone for a while, or may not be written to: 503 meanwhile, and nothing is acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from receiver.errors import StartError
from receiver.settings import load_settings
from receiver.storage.schema import check_schema, migrate
from tests.fakes.databases import MASTER_KEY, migrated_on
from tests.fakes.inbound import post
from tests.fakes.postgresql import Server, own_server, standby
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.postgresql_only("a server that dies")

BY_HAND = {"outcome": "never", "webhook": "lost"}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server of the test's own, which waits for the disk as one in earnest does."""
    async with own_server() as server:
        yield server


def come_again(answer: httpx.Response) -> bool:
    """Say whether it is a 503 that tells when to come again."""
    return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


async def test_while_it_is_gone_nothing_is_acknowledged_and_everybody_may_come_again(
    tmp_path: Path, server: Server
) -> None:
    async with in_process(tmp_path, **await migrated_on(server)) as world:
        task_id = await world.created(BY_HAND)
        await server.stop("immediate")
        answers = await asyncio.gather(
            post(world, task_id, content=b"{}"),
            world.create(),
            world.api.post("/api/v1/webhooks", json={"endpoint_url": world.subscriber.url}),
            world.api.get(f"/api/v1/tasks/{task_id}"),
            world.api.get("/readyz"),
        )
        assert all(come_again(answer) for answer in answers), [answer.text for answer in answers]
        assert (await world.api.get("/livez")).status_code == 200
        await server.start()
        await ready(world)
        assert (await world.task(task_id))["status"] == "pending"
        assert (await world.ended(await world.created()))["status"] == "completed"


async def test_a_standby_is_not_served(server: Server) -> None:
    await migrated_on(server)
    async with standby(server) as copy:
        environment = {"RINGBACK_DATABASE_URL": copy.url(), "RINGBACK_SECRET_KEY": MASTER_KEY}
        for begin in (migrate, check_schema):
            with pytest.raises(StartError, match="name the primary"):
                await begin(load_settings(environment, env_file=None))


async def ready(world: World) -> None:
    """Wait until the service says that it is ready. Raises TimeoutError."""
    async with asyncio.timeout(30):
        while (await world.api.get("/readyz")).status_code != 200:
            pass
