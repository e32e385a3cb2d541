"""Ask the service everything, and check what must hold for each answer (`tests/fuzz/README.md`)."""

import argparse
import asyncio
import random
import sys
import time

from tests.fakes import databases
from tests.fakes.loopback import allow_loopback_only
from tests.fuzz.run import fuzz


def main() -> None:
    """Run the fuzz that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="how many requests (%(default)s)")
    parser.add_argument("--begin", type=int, default=0, help="the number of the first one")
    parser.add_argument("--seed", type=int, help="decides what is asked; drawn and printed if it is not given")
    parser.add_argument("--only", type=int, nargs="+", help="only the requests with these numbers")
    parser.add_argument("--worst", action="store_true", help="first the bodies that take longest, one after the other")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--both", action="store_true", help="half of them on each database, side by side")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    if given.both:
        sys.exit(asyncio.run(_on_both(seed, given.count // 2, worst=given.worst)))
    print(f"seed {seed} on {given.database}", flush=True)
    allow_loopback_only()
    began = time.monotonic()
    made = databases.begin(given.database)
    try:
        findings = asyncio.run(
            fuzz(seed, given.only or range(given.begin, given.begin + given.count), with_worst=given.worst)
        )
    finally:
        made.drop()
        databases.end_session()
    for failure in findings.failures:
        print(failure, end="\n\n")
    seconds = time.monotonic() - began
    print(f"{findings.asked} requests in {seconds:.0f} s, by status {dict(sorted(findings.statuses.items()))}")
    sys.exit(bool(findings.failures))


async def _on_both(seed: int, count: int, *, worst: bool) -> int:
    """Run half of the requests on each database, in a process each; return the worse exit status."""
    command = (sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--count", str(count))
    more = ("--worst",) if worst else ()
    processes = [
        await asyncio.create_subprocess_exec(*command, "--database", database, "--begin", str(begin), *more)
        for database, begin in (("sqlite", 0), ("postgresql", count))
    ]
    return max([abs(await process.wait()) for process in processes])


if __name__ == "__main__":
    main()
