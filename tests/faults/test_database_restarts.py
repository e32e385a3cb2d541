"""PostgreSQL stops as in a power cut and restarts, under load: nothing is lost and the service recovers by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.databases import migrated_on
from tests.fakes.postgresql import own_server
from tests.fakes.replicas import Replica, replicas
from tests.faults.load import PROVIDER, SETTINGS, refusals_carry_retry_after, under_load

pytestmark = [pytest.mark.postgresql_only("it needs its own server"), pytest.mark.with_locks_too, pytest.mark.long]

RESTARTS = 3
IN_FLIGHT = 3


async def test_the_service_recovers_by_itself_from_three_immediate_restarts(tmp_path: Path) -> None:
    async with own_server() as server:
        settings: dict[str, Any] = {**await migrated_on(server), "submit_wait_seconds": "1", **SETTINGS}
        async with replicas(tmp_path, PROVIDER, **settings) as pair:
            async with under_load(pair.world, pair.each) as (load, _):
                for _ in range(RESTARTS):
                    await load.more(20)
                    creating = await creates_in_flight(pair.each[0])
                    await server.stop("immediate")
                    await pair.become(503)
                    # The provider created these, and may charge for them. A client that received an error would
                    # create them again.
                    load.created += await asyncio.gather(*creating)
                    await server.start()
                    await pair.become(200)
                await load.more(20)
            refusals_carry_retry_after(pair.balancer.answers)


async def creates_in_flight(replica: Replica) -> list[asyncio.Task[str]]:
    """Begin to create tasks; return when the provider has created them and is delaying its responses."""
    slow = {"submit": "hang", "hang_seconds": 0.5}
    before = await replica.made("slow")
    creating = [asyncio.create_task(replica.created(slow, model="slow")) for _ in range(IN_FLIGHT)]
    async with asyncio.timeout(10):
        while await replica.made("slow") < before + IN_FLIGHT:
            pass
    return creating
