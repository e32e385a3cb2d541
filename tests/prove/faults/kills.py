"""`kill -9`, at random moments and at named points of the work; each time the service is started again."""

import asyncio

from tests.prove.service import Service
from tests.prove.world import World

POINTS = (
    "after_the_providers_answer",
    "before_the_commit_of_a_webhook",
    "after_the_commit_before_the_200",
    "after_sending_before_settling",
    "before_the_work_of_a_key",
    "after_the_work_before_its_answer_is_stored",
    "before_the_commit_of_a_stored_answer",
    "before_the_commit_of_a_run",
    "after_the_commit_of_a_run",
    "before_the_commit_of_a_step_s_end",
    "after_the_commit_of_a_step_s_end",
)
"""Points of `tests.fakes.crash_points` that the load reaches by itself."""
_REACHED_SECONDS = 10.0


async def kill_at_random(world: World, rounds: int) -> None:
    """Kill a process after a random share of work, and start it again after a random pause."""
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(4, 18))
        await asyncio.sleep(world.rng.uniform(0, 0.3))
        service = world.any_service()
        await service.kill()
        world.fault("kill", hit=True, service=service.name)
        await asyncio.sleep(world.rng.uniform(0, 0.5))
        await service.start()
    await world.load.more(10)


async def kill_at_points(world: World, rounds: int) -> None:
    """Start a process so that it kills itself at a point of its work; then start it again without that."""
    first = world.rng.randrange(len(POINTS))
    for number in world.rounds(rounds):
        point = POINTS[(first + number) % len(POINTS)]
        await world.load.more(world.rng.randint(2, 8))
        service = world.any_service()
        await service.stop()
        await service.start(point)
        await _die(world, service, point)
        await service.start()
    await world.load.more(10)


async def _die(world: World, service: Service, point: str) -> None:
    hit = await service.dies(_REACHED_SECONDS)
    world.fault("kill at a point", hit=hit, point=point, service=service.name)
    if not hit:
        await service.kill()
