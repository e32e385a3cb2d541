"""What is done to mutants: short and strong faults of one kind, so that each is found in seconds."""

import asyncio
from collections.abc import Mapping

from tests.prove.campaign import Fault
from tests.prove.weather import Weather
from tests.prove.world import World

_DEATH_SECONDS = 10.0


async def nothing(world: World, rounds: int) -> None:
    """Only let the load run."""
    await world.load.more(20 * rounds)


async def kill_often(world: World, rounds: int) -> None:
    """Kill a process after a little work, and start it again."""
    for _ in range(rounds):
        await world.load.more(world.rng.randint(5, 10))
        service = world.any_service()
        await service.kill()
        world.fault("kill", hit=True, service=service.name)
        await service.start()
    await world.load.more(8)


def kill_at(point: str) -> Fault:
    """Return a fault that kills a process at one crash point of `tests.fakes.crash_points` in every round."""

    async def kill(world: World, rounds: int) -> None:
        for _ in range(rounds):
            await world.load.more(3)
            service = world.any_service()
            await service.stop()
            await service.start(point)
            hit = await service.dies(_DEATH_SECONDS)
            world.fault("kill at a point", hit=hit, point=point, service=service.name)
            await service.kill()
            await service.start()
        await world.load.more(6)

    return kill


def weather(bad: Weather) -> Fault:
    """Return a fault that gives the provider this weather."""

    async def spoil(world: World, rounds: int) -> None:
        world.provider.weather = bad
        await world.load.more(22 * rounds)
        world.fault("provider weather", hit=True)

    return spoil


def subscribers(bad: Mapping[str, float]) -> Fault:
    """Return a fault that gives every subscriber these shares of bad answers."""

    async def spoil(world: World, rounds: int) -> None:
        world.subscribers.faults = bad
        await world.load.more(18 * rounds)
        world.fault("subscriber weather", hit=True)
        await asyncio.sleep(0.5)

    return spoil
