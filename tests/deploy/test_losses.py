"""No webhook is lost behind a proxy: neither on idle connections, nor while replicas restart one after the other.

A webhook is lost if it is not answered with 200, or if it is and is not in the database. Each is sent once.
"""

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.hooks_load import SECRET, HooksLoad
from tests.deploy.proxies import HOST, PROXIES, Proxy, new_place, rendered, served
from tests.fakes.certificate import self_signed
from tests.fakes.replicas import replicas
from tests.fakes.world import in_processes

_KEPT_BY_PROXY = {"nginx": "keepalive_timeout 60s", "caddy": "keepalive 60s", "haproxy": "pool-purge-delay 5s"}
"""The line that says for how long a proxy keeps an idle connection to the service."""
_ASKED_FOR: dict[str, dict[str, Any]] = {"caddy": {"lame_duck_seconds": "3"}}
"""What a proxy's file asks the service for where it restarts."""
_NAMES = sorted(_KEPT_BY_PROXY)
_ON_POSTGRESQL = pytest.mark.parametrize("backend", ["postgresql"], indirect=True, scope="module")
_LARGE = pytest.mark.large("takes minutes; see tests/deploy/README.md")


@pytest.mark.parametrize("name", _NAMES)
async def test_no_webhook_is_lost_on_connections_that_are_idle(name: str, tmp_path: Path) -> None:
    """The proxy keeps a connection for 1 s and the service for 2.25 s: the proportion of 60 s to 135 s."""
    load, lost = await idle(name, tmp_path, kept="1s", seconds=2.25, connections=300, each=4, idle=(0.1, 2.5))
    assert (load.outcomes.total(), lost) == (300 * 4, Counter())


@_LARGE
@pytest.mark.parametrize("name", _NAMES)
async def test_no_webhook_is_lost_on_connections_that_are_idle_for_as_long_as_in_production(
    name: str, tmp_path: Path
) -> None:
    load, lost = await idle(name, tmp_path, kept=None, seconds=135, connections=1500, each=10, idle=(0.1, 72))
    assert (load.outcomes.total(), lost) == (1500 * 10, Counter())


@_LARGE
async def test_webhooks_are_lost_where_the_service_closes_first(tmp_path: Path) -> None:
    """What the tests above would see: the proxy keeps a connection longer than the service, and does not repeat."""
    load, lost = await idle("caddy", tmp_path, kept="60s", seconds=0.5, connections=300, each=40, idle=(0.49, 0.51))
    assert load.outcomes.total() == 300 * 40
    assert lost


async def idle(
    name: str,
    folder: Path,
    *,
    kept: str | None,
    seconds: float,
    connections: int,
    each: int,
    idle: tuple[float, float],
) -> tuple[HooksLoad, Counter[str]]:
    """Send webhooks on connections that are idle in between; return the load and what was lost."""
    certificate = self_signed(folder, HOST)
    (world_folder := folder / "world").mkdir()
    settings: dict[str, Any] = {"piapi_webhook_secret": SECRET, "keepalive_seconds": str(seconds)}
    async with in_processes(world_folder, **settings) as world:
        proxy, place = PROXIES[name], new_place(folder / name, certificate, world.port)
        line = _KEPT_BY_PROXY[name]
        changed = {line: f"{line.split()[0]} {kept}"} if kept else {}
        async with served(proxy, rendered(proxy, place, changed=changed), place) as url:
            load = HooksLoad(url, certificate)
            await load.run(connections, each=each, idle=idle)
        return load, load.lost(world)


@_ON_POSTGRESQL
@pytest.mark.parametrize("name", _NAMES)
async def test_no_webhook_is_lost_while_two_replicas_restart_in_turn(name: str, backend: str, tmp_path: Path) -> None:
    load, lost = await restarting(PROXIES[name], tmp_path, rounds=1, between=300, connections=24)
    assert load.outcomes.total() >= 600
    assert lost == Counter()


@_LARGE
@_ON_POSTGRESQL
@pytest.mark.parametrize("name", _NAMES)
async def test_no_webhook_is_lost_in_many_restarts(name: str, backend: str, tmp_path: Path) -> None:
    load, lost = await restarting(PROXIES[name], tmp_path, rounds=9, between=1800, connections=64)
    assert load.outcomes.total() >= 32_000
    assert lost == Counter()


async def restarting(
    proxy: Proxy, folder: Path, *, rounds: int, between: int, connections: int
) -> tuple[HooksLoad, Counter[str]]:
    """Restart two replicas in turn under a load, `between` webhooks after each other; return what was lost."""
    certificate = self_signed(folder, HOST)
    (folder / "world").mkdir()
    async with AsyncExitStack() as stack:
        pair = await stack.enter_async_context(
            replicas(
                folder / "world", short_leases=False, piapi_webhook_secret=SECRET, **_ASKED_FOR.get(proxy.name, {})
            )
        )
        place = new_place(folder / proxy.name, certificate, *(replica.port for replica in pair.each))
        url = await stack.enter_async_context(served(proxy, rendered(proxy, place, ["replicas"]), place))
        load = HooksLoad(url, certificate)
        async with load.running(connections):
            for replica in [*pair.each] * rounds:
                await load.more(between)
                assert await replica.stop() == 0, replica.log()
                await replica.start()
            await load.more(between)
        return load, load.lost(pair.world)
