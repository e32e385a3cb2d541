"""The wall clock of a process is stepped: by seconds, by a quarter of an hour, by an hour, forward and back."""

import asyncio

from tests.prove.world import World

_STEPS = (3600.0, -3600.0, 900.0, -900.0, 40.0, -40.0)


async def step(world: World, rounds: int) -> None:
    """Step the clock of a process at a random moment; at the end each clock goes right again, which is a step too."""
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(4, 12))
        service = world.any_service()
        seconds = world.rng.choice(_STEPS)
        service.clock.step(seconds)
        world.fault("clock step", hit=service.runs, service=service.name, seconds=seconds)
        await asyncio.sleep(world.rng.uniform(0.2, 1.5))
    await world.load.more(6)
    for service in world.services:
        seconds = -service.clock.offset
        if seconds:
            service.clock.set(0.0)
            world.fault("clock step", hit=service.runs, service=service.name, seconds=seconds)
    await world.load.more(6)
