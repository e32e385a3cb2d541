"""PostgreSQL goes away as in a power cut and comes back, under load: nothing is lost, and all goes on by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.databases import migrated_on
from tests.fakes.postgresql import own_server
from tests.fakes.replicas import Replica, replicas
from tests.faults.load import (
    PROVIDER,
    SETTINGS,
    Listener,
    Load,
    every_sequence,
    nothing_was_lost,
    refusals_carry_retry_after,
    subscribe,
)

pytestmark = pytest.mark.postgresql_only("a server of its own")

RESTARTS = 3
UNDER_WAY = 3


async def test_after_three_immediate_restarts_all_goes_on_by_itself(tmp_path: Path) -> None:
    async with own_server() as server:
        settings: dict[str, Any] = {**await migrated_on(server), "submit_wait_seconds": "1", **SETTINGS}
        async with replicas(tmp_path, PROVIDER, **settings) as pair:
            world = pair.world
            await subscribe(world)
            load, listener = Load(world), Listener(pair.each)
            async with listener.listening():
                async with load.running():
                    for _ in range(RESTARTS):
                        await load.more(20)
                        creating = await creates_under_way(pair.each[0])
                        await server.stop("immediate")
                        await pair.become(503)
                        # Those were made, and may be paid for: whoever was told otherwise would make them again.
                        load.created += await asyncio.gather(*creating)
                        await server.start()
                        await pair.become(200)
                    await load.more(20)
                await nothing_was_lost(world, load)
                await load.waited()
                await listener.saw(every_sequence(world))
            refusals_carry_retry_after(pair.balancer.answers)


async def creates_under_way(replica: Replica) -> list[asyncio.Task[str]]:
    """Begin to create tasks; the provider has made them and keeps its answers back for a while."""
    slow = {"submit": "hang", "hang_seconds": 0.5}
    before = await replica.made("slow")
    creating = [asyncio.create_task(replica.created(slow, model="slow")) for _ in range(UNDER_WAY)]
    async with asyncio.timeout(10):
        while await replica.made("slow") < before + UNDER_WAY:
            pass
    return creating
