"""Subscribers with bad weather: errors, redirects, cuts, slow answers, none at all, and one that is gone for good."""

from tests.prove.world import World

BAD = {"500": 0.1, "503": 0.06, "429": 0.06, "redirect": 0.05, "cut": 0.08, "hang": 0.04, "slow": 0.08}
"""The shares of answers of every endpoint."""
WORSE = {"500": 0.4, "cut": 0.2, "hang": 0.1}
"""Those of the endpoint `flaky`."""


async def spoil_answers(world: World, rounds: int) -> None:
    """Answer deliveries badly; a webhook that was registered for this purpose is gone after some of them."""
    await world.register_one("gone", {"event_types": ["task.*"]}, gone_after=world.rng.randint(3, 20))
    for _ in world.rounds(rounds):
        world.subscribers.faults = BAD
        world.subscribers.endpoints["flaky"].faults = WORSE
        await world.load.more(world.rng.randint(8, 15))
        world.subscribers.faults = {}
        await world.load.more(3)
