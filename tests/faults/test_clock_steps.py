"""The wall clock of the machine is stepped while the service works, and while it is down: nothing ends by it."""

import asyncio
from pathlib import Path
from typing import Any

from tests.fakes.stepped_clock import SteppedClock
from tests.fakes.world import FAST_POLLING, in_processes

AHEAD, HOUR = 900.0, 3600.0
SECONDS = 20.0
"""How long a task may take at most: far less than a look that is an hour late."""


async def test_a_create_a_poll_and_a_restart_survive_steps_of_the_clock(tmp_path: Path) -> None:
    clock = SteppedClock(tmp_path / "clock")
    clock.set(AHEAD)  # a replica whose clock is wrong from the start
    settings: dict[str, Any] = {**FAST_POLLING, "task_timeout_seconds": "600"}
    async with in_processes(tmp_path, public=False, start=False, **settings) as world:
        world.environment |= clock.environment
        await world.start()

        creating = asyncio.create_task(world.create({"submit": "hang", "hang_seconds": 0.5, "duration": 0.1}))
        while not (await world.provider_stats())["created"]:
            assert not creating.done()
        clock.step(HOUR)
        answer = await creating
        assert (answer.status_code, answer.json()["data"]["status"]) == (200, "pending")
        created = await world.ended(answer.json()["data"]["task_id"], SECONDS)

        task_id = await world.created({"duration": 0.2})
        clock.step(-2 * HOUR)
        polled = await world.ended(task_id, SECONDS)

        task_id = await world.created({"duration": 0.2})
        await world.kill()
        clock.step(-HOUR)
        await world.start()
        left = await world.ended(task_id, SECONDS)

        assert [(task["status"], task["attempt"]) for task in (created, polled, left)] == [("completed", 1)] * 3
        assert (await world.provider_stats())["created"] == 3
        assert "clock jumped" in world.log()
