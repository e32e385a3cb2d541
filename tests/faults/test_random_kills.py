"""`kill -9` at random moments under load: everything that was acknowledged is there, and everything ends."""

import random
from pathlib import Path

import pytest

from tests.fakes.world import in_processes
from tests.faults.load import PROVIDER, SETTINGS, Listener, Load, every_sequence, nothing_was_lost, subscribe

KILLS = {"sqlite": 20, "postgresql": 5}
MOST_BETWEEN = 15
"""How many requests may be acknowledged between two kills: on average half of it are."""


@pytest.mark.parametrize("seed", [20])
async def test_what_was_acknowledged_is_there_and_everything_ends(tmp_path: Path, backend: str, seed: int) -> None:
    rng = random.Random(seed)
    async with in_processes(tmp_path, PROVIDER, **SETTINGS) as world:
        await subscribe(world)
        load, listener = Load(world), Listener([world])
        async with listener.listening():
            async with load.running():
                for _ in range(KILLS[backend]):
                    await load.more(rng.randrange(MOST_BETWEEN))
                    await world.kill()
                    await world.start()
                await load.more(MOST_BETWEEN)
            await nothing_was_lost(world, load)
            await load.waited()
            await listener.saw(every_sequence(world))
