"""A provider with bad weather: lost, doubled, reordered, late and forged webhooks; errors, cuts and slow answers."""

import asyncio
from dataclasses import replace

from tests.prove.weather import Weather
from tests.prove.world import World

BAD_WEBHOOKS = Weather(lost=0.3, doubled=0.25, late=0.35, repeated_later=0.15, forged=0.25, long=0.1)
BAD_ANSWERS = Weather(
    submit={
        "500 after": 0.05,
        "502 after": 0.03,
        "504 after": 0.03,
        "500 before": 0.04,
        "503": 0.06,
        "429": 0.05,
        "cut after": 0.05,
        "cut before": 0.04,
        "slow": 0.06,
        "too slow": 0.03,
    },
    look={"500": 0.05, "503": 0.05, "429": 0.04, "cut": 0.04, "slow": 0.05},
    hidden=0.15,
    long=0.15,
    lost=0.15,
)
OUTAGE = Weather(submit={"503": 0.5, "cut before": 0.5}, look={"503": 0.5, "cut": 0.5}, lost=0.5)


async def spoil_webhooks(world: World, rounds: int) -> None:
    """Lose, double, delay, repeat and forge webhooks, more or less of each in every round."""
    for _ in world.rounds(rounds):
        world.provider.weather = replace(BAD_WEBHOOKS, lost=world.rng.choice((0.1, 0.3, 0.9)))
        await world.load.more(world.rng.randint(10, 18))


async def spoil_answers(world: World, rounds: int) -> None:
    """Answer calls badly; between such times nothing is answered well for some seconds."""
    for _ in world.rounds(rounds):
        world.provider.weather = BAD_ANSWERS
        await world.load.more(world.rng.randint(8, 16))
        seconds = world.rng.uniform(0.5, 3.0)
        before = world.history.count("provider", "answered")
        world.provider.weather = OUTAGE
        await asyncio.sleep(seconds)
        refused = world.history.count("provider", "answered") - before
        world.fault("provider outage", hit=refused > 0, seconds=round(seconds, 2), refused=refused)
    world.provider.weather = BAD_ANSWERS
    await world.load.more(10)
