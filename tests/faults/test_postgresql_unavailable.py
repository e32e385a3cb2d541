"""While PostgreSQL is down or read-only, every request is answered with 503 and nothing is acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from receiver.errors import StartError
from receiver.settings import load_settings
from receiver.storage.schema import check_schema, migrate
from tests.fakes.databases import MASTER_KEY, migrated_on
from tests.fakes.inbound import SILENT, post
from tests.fakes.postgresql import Server, own_server, standby
from tests.fakes.world import World, in_process

pytestmark = [pytest.mark.postgresql_only("it stops its own server"), pytest.mark.with_locks_too]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """The test's own server, which waits for the disk at a commit as a production server does."""
    async with own_server() as server:
        yield server


def is_retryable(answer: httpx.Response) -> bool:
    """Return whether a response is a 503 with a `Retry-After` of at least a second."""
    return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


async def test_while_the_server_is_down_nothing_is_acknowledged_and_every_request_may_be_retried(
    tmp_path: Path, server: Server
) -> None:
    async with in_process(tmp_path, **await migrated_on(server)) as world:
        task_id = await world.created(SILENT)
        await server.stop("immediate")
        answers = await asyncio.gather(
            post(world, task_id, content=b"{}"),
            world.create(),
            world.api.post("/api/v1/webhooks", json={"endpoint_url": world.subscriber.url}),
            world.api.get(f"/api/v1/tasks/{task_id}"),
            world.api.get("/readyz"),
        )
        assert all(is_retryable(answer) for answer in answers), [answer.text for answer in answers]
        assert (await world.api.get("/livez")).status_code == 200
        await server.start()
        await ready(world)
        assert (await world.task(task_id))["status"] == "pending"
        assert (await world.ended(await world.created()))["status"] == "completed"


async def test_the_service_refuses_to_start_on_a_standby(server: Server) -> None:
    await migrated_on(server)
    async with standby(server) as copy:
        environment = {"RINGBACK_DATABASE_URL": copy.url(), "RINGBACK_SECRET_KEY": MASTER_KEY}
        for check in (migrate, check_schema):
            with pytest.raises(StartError, match="name the primary"):
                await check(load_settings(environment, env_file=None))


async def ready(world: World) -> None:
    """Wait until `/readyz` answers with 200. Raises TimeoutError."""
    async with asyncio.timeout(30):
        while (await world.api.get("/readyz")).status_code != 200:
            pass
