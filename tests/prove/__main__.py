"""Prove that the service keeps its promises under faults: `python -m tests.prove --help`."""

import argparse
import asyncio
import random
import sys
from pathlib import Path

from tests.fakes.fork_server import ForkServer
from tests.fakes.loopback import allow_loopback_only
from tests.prove.campaign import Outcome, run_campaign
from tests.prove.plan import CAMPAIGNS
from tests.prove.stores import KINDS, Kind, Stores


async def prove(names: list[str], kinds: tuple[Kind, ...], seed: int, out: Path, *, rounds: int) -> list[Outcome]:
    stores, forks = Stores(), ForkServer()
    outcomes = []
    try:
        for campaign in CAMPAIGNS:
            for kind in kinds:
                if kind in campaign.kinds and (not names or campaign.name in names):
                    outcome = await run_campaign(campaign, kind, seed, out / str(seed), stores, forks, rounds)
                    print(outcome.campaign.name, outcome.kind, outcome.seconds, outcome.error or "", flush=True)
                    outcomes.append(outcome)
    finally:
        forks.close()
        stores.close()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--database", choices=KINDS)
    parser.add_argument("--campaign", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("proof"))
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    allow_loopback_only()
    kinds: tuple[Kind, ...] = (arguments.database,) if arguments.database else KINDS
    print(f"seed {arguments.seed}")
    outcomes = asyncio.run(prove(arguments.campaign, kinds, arguments.seed, arguments.out, rounds=arguments.rounds))
    sys.exit(any(outcome.error for outcome in outcomes))


if __name__ == "__main__":
    main()
