"""`kill -9` at random moments under load: everything that was acknowledged is stored, and every task ends."""

import random
from pathlib import Path

import pytest

from tests.fakes.world import in_processes
from tests.faults.load import PROVIDER, SETTINGS, under_load

pytestmark = [pytest.mark.with_locks_too, pytest.mark.long]

KILLS = {"sqlite": 20, "postgresql": 5, "postgresql with locks": 5}
MOST_BETWEEN = 15
"""The upper limit of requests acknowledged between two kills; the average is half of it."""


@pytest.mark.parametrize("seed", [20])
async def test_what_was_acknowledged_is_stored_and_every_task_ends(tmp_path: Path, backend: str, seed: int) -> None:
    rng = random.Random(seed)
    async with in_processes(tmp_path, PROVIDER, **SETTINGS) as world, under_load(world, [world]) as (load, _):
        for _ in range(KILLS[backend]):
            await load.more(rng.randrange(MOST_BETWEEN))
            await world.kill()
            await world.start()
        await load.more(MOST_BETWEEN)
