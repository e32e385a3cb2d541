"""Restarts in order: of the service, one process after the other, and of PostgreSQL, also as in a power cut."""

import asyncio
from typing import Literal

from tests.fakes.databases import outside
from tests.prove.world import World

_MODES: tuple[Literal["immediate", "fast"], ...] = ("immediate", "fast")


async def roll(world: World, rounds: int) -> None:
    """Stop each process with SIGTERM and start it again, one after the other."""
    for _ in world.rounds(rounds):
        for service in world.services:
            await world.load.more(world.rng.randint(3, 12))
            status = await service.stop()
            world.fault("graceful restart", hit=True, service=service.name, status=status)
            await service.start()
    await world.load.more(10)


async def restart_database(world: World, rounds: int) -> None:
    """Stop PostgreSQL, without a checkpoint or in order, for some seconds, and start it again."""
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(4, 15))
        await _restart(world, world.rng.choice(_MODES))
    await world.load.more(10)


async def restart_forgetful_database(world: World, rounds: int) -> None:
    """Make `synchronous_commit` off the database's default, then cut its power again and again."""
    with outside(world.store.url) as database:
        database.execute(f"ALTER DATABASE {world.store.name} SET synchronous_commit = off")
    await _restart(world, "immediate")  # from here on every session has the new default
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(4, 15))
        await _restart(world, "immediate")
    await world.load.more(10)


async def _restart(world: World, mode: Literal["immediate", "fast"]) -> None:
    server = world.store.server
    assert server is not None
    seconds = world.rng.uniform(0.2, 3.0)
    await server.stop(mode)
    await asyncio.sleep(seconds)
    await server.start()
    world.fault("database restart", hit=True, mode=mode, seconds=round(seconds, 2))
