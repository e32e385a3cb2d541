"""A process that is frozen (SIGSTOP), as on a suspended machine: on PostgreSQL for longer than its leases last."""

import asyncio

from tests.prove.weather import Weather
from tests.prove.world import World

_PAST_THE_LEASE_SECONDS = (10.5, 13.0)
_STALL_SECONDS = (1.0, 4.0)
"""On SQLite, where no other process can take what it has leased."""
_LEASED = "SELECT (SELECT count(*) FROM task WHERE leased) + (SELECT count(*) FROM delivery WHERE leased) AS n"


async def freeze(world: World, rounds: int) -> None:
    """Freeze a process while it has leased something, and wake it when others have taken that over."""
    world.provider.weather = Weather(submit={"slow": 0.3})
    world.subscribers.faults = {"slow": 0.3}
    has_others = len(world.services) > 1
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(4, 12))
        service = world.any_service()
        seconds = world.rng.uniform(*(_PAST_THE_LEASE_SECONDS if has_others else _STALL_SECONDS))
        await asyncio.sleep(world.rng.uniform(0, 0.3))
        service.freeze()
        leased = int(world.store.select(_LEASED)[0]["n"])
        await asyncio.sleep(seconds)
        service.wake()
        world.fault("freeze", hit=leased > 0, service=service.name, seconds=round(seconds, 2), leased=leased)
    await world.load.more(10)
