"""Everything at once: kills, bad weather on both sides, foreign locks, and on PostgreSQL restarts and cut COMMITs."""

import asyncio
import random
from dataclasses import replace

from tests.prove.campaign import Fault
from tests.prove.faults import commits, foreign, kills, provider, restarts, subscribers
from tests.prove.world import World

_EVERYWHERE: tuple[Fault, ...] = (
    kills.kill_at_random,
    provider.spoil_webhooks,
    provider.spoil_answers,
    subscribers.spoil_answers,
    foreign.interfere,
)
_POSTGRESQL: tuple[Fault, ...] = (restarts.restart_database, commits.meet)


async def combine(world: World, rounds: int) -> None:
    """Do several kinds of faults side by side, each with a sequence of random choices of its own."""
    faults = _EVERYWHERE + (_POSTGRESQL if world.store.kind == "postgresql" else ())
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            own = replace(world, rng=random.Random(world.rng.random()))
            group.create_task(_done(fault, own, rounds))


async def _done(fault: Fault, world: World, rounds: int) -> None:
    await fault(world, rounds)
