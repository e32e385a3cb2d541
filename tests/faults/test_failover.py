"""The primary dies and a standby replaces it, under load: no replica is ready until the standby accepts writes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.databases import migrated_on, outside
from tests.fakes.postgresql import Server, own_server, standby
from tests.fakes.replicas import replicas
from tests.faults.load import PROVIDER, SETTINGS, refusals_carry_retry_after, under_load

pytestmark = [pytest.mark.postgresql_only("it needs its own servers"), pytest.mark.with_locks_too, pytest.mark.long]


async def test_the_service_waits_for_a_failover_to_a_standby_and_loses_nothing(tmp_path: Path) -> None:
    async with own_server() as primary:
        settings: dict[str, Any] = {**await migrated_on(primary), "submit_wait_seconds": "1", **SETTINGS}
        async with standby(primary) as second:
            await commit_on_both(primary)
            settings["database_url"] = f"{primary.url()},{second.folder}"
            async with replicas(tmp_path, PROVIDER, **settings) as pair:
                async with under_load(pair.world, pair.each) as (load, _):
                    await load.more(20)
                    await primary.restart("immediate")
                    await pair.become(200)
                    await load.more(20)
                    assert connections(second) == 0  # the standby lags behind: a stream that read it would skip events
                    await primary.stop("immediate")
                    await pair.become(503)
                    with outside(second.url()) as server:
                        server.execute("SELECT pg_promote(false)")
                    await pair.become(200)
                    await load.more(20)
                refusals_carry_retry_after(pair.balancer.answers)


def connections(server: Server) -> int:
    """Return how many connections the replicas have to a server."""
    with outside(server.url()) as database:
        (count,) = database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ringback'"
        ).fetchone()
    return int(count)


async def commit_on_both(primary: Server) -> None:
    """Make every commit wait for the standby, so that what was acknowledged exists after a failover."""
    with outside(primary.url()) as server:
        server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(20):
            while server.execute("SELECT sync_state FROM pg_stat_replication").fetchone() != ("sync",):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
