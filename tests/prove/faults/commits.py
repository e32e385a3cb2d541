"""Connections to PostgreSQL that are cut at COMMIT, before or after the server has it, and COMMITs that are held."""

from tests.prove.world import World

_SHARES = (0.03, 0.08, 0.2)


async def meet(world: World, rounds: int) -> None:
    """Let a share of all COMMITs meet a fault; the proxy writes down each."""
    assert world.commits is not None
    for _ in world.rounds(rounds):
        world.commits.share = world.rng.choice(_SHARES)
        before = world.commits.met
        await world.load.more(world.rng.randint(10, 18), seconds=25)
        world.commits.share = 0.0
        if world.commits.met == before:
            world.fault("COMMIT not met", hit=False)
        await world.load.more(2)
    await world.load.more(8)
