"""The primary dies and a standby takes its place, under load: until that can be written to nobody is ready."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.databases import migrated_on, outside
from tests.fakes.postgresql import Server, own_server, standby
from tests.fakes.replicas import replicas
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

pytestmark = pytest.mark.postgresql_only("servers of its own")


async def test_a_failover_to_a_standby_is_waited_for_and_loses_nothing(tmp_path: Path) -> None:
    async with own_server() as primary:
        settings: dict[str, Any] = {**await migrated_on(primary), "submit_wait_seconds": "1", **SETTINGS}
        async with standby(primary) as second:
            await commit_on_both(primary)
            settings["database_url"] = f"{primary.url()},{second.folder}"
            async with replicas(tmp_path, PROVIDER, **settings) as pair:
                world = pair.world
                await subscribe(world)
                load, listener = Load(world), Listener(pair.each)
                async with listener.listening():
                    async with load.running():
                        await load.more(20)
                        await primary.restart("immediate")
                        await pair.become(200)
                        await load.more(20)
                        assert connected(second) == 0  # it is behind: streams that read there would skip events
                        await primary.stop("immediate")
                        await pair.become(503)
                        with outside(second.url()) as server:
                            server.execute("SELECT pg_promote(false)")
                        await pair.become(200)
                        await load.more(20)
                    await nothing_was_lost(world, load)
                    await load.waited()
                    await listener.saw(every_sequence(world))
                refusals_carry_retry_after(pair.balancer.answers)


def connected(server: Server) -> int:
    """Count the connections that the replicas have to it."""
    with outside(server.url()) as database:
        (count,) = database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ringback'"
        ).fetchone()
    return int(count)


async def commit_on_both(primary: Server) -> None:
    """Have a commit wait until the standby has it too: what was acknowledged must be there after a failover."""
    with outside(primary.url()) as server:
        server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(20):
            while server.execute("SELECT sync_state FROM pg_stat_replication").fetchone() != ("sync",):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
