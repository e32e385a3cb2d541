"""Prove that the service keeps its promises under faults.

Campaigns of faults are run on both databases against real processes; what every party saw is kept as a history, which
a checker compares with the promises. Copies of the service with a fault each, the mutants, are run in the same way:
the checker must find each. The exit status is 0 only if there is no anomaly and every mutant was caught.
"""

import argparse
import asyncio
import logging
import random
import shlex
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

from tests.fakes.loopback import allow_loopback_only
from tests.prove.machine import facts
from tests.prove.plan import CAMPAIGNS, MUTANTS
from tests.prove.proof import Choice, Proof
from tests.prove.report import write_report
from tests.prove.results import failed
from tests.prove.stores import KINDS

_MOST_SEEDS = 1_000_000


def main() -> None:
    """Run the proof that the command line describes."""
    choice = _choice()
    allow_loopback_only()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that SIGTERM cleans up too
    command = _command(choice)
    print(f"seed {choice.seed}; the same proof again: {command}", flush=True)
    began, clock = datetime.now(UTC), time.monotonic()
    proof = Proof(choice)
    asyncio.run(proof.run())
    told = facts(command, choice.seed, began, time.monotonic() - clock, quick=choice.quick)
    report = write_report(choice.out, told, proof.campaigns, proof.mutants)
    has_failed = failed(proof.campaigns, proof.mutants)
    print(f"{'FAILED' if has_failed else 'passed'}; the report is {report}", flush=True)
    sys.exit(has_failed)


def _command(choice: Choice) -> str:
    """Return the command that does the same again."""
    names = [*(choice.campaigns or ()), *(choice.mutants or ())]
    if not names and len(choice.kinds) == len(KINDS):
        return f"make prove{' QUICK=1' if choice.quick else ''} SEED={choice.seed}"
    words = ["python -m tests.prove", *(["--quick"] if choice.quick else []), f"--seed {choice.seed}"]
    words += [f"--database {choice.kinds[0]}"] if len(choice.kinds) == 1 else []
    words += ["--campaign", *map(shlex.quote, choice.campaigns)] if choice.campaigns else []
    words += ["--mutant", *map(shlex.quote, choice.mutants)] if choice.mutants else []
    return " ".join(words)


def _choice() -> Choice:
    parser = argparse.ArgumentParser(
        prog="python -m tests.prove", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="some campaigns and mutants, in about two minutes")
    parser.add_argument("--seed", type=int, help="decides what happens; drawn and printed if it is not given")
    parser.add_argument("--database", choices=KINDS, help="only on this one")
    parser.add_argument(
        "--campaign", nargs="+", metavar="NAME", help=f"only these: {', '.join(each.name for each in CAMPAIGNS)}"
    )
    parser.add_argument("--mutant", nargs="+", metavar="NAME", help="only these mutants, by the names in the report")
    parser.add_argument("--out", type=Path, default=Path("proof"), help="the folder of the report (%(default)s)")
    given = parser.parse_args()
    _check_names(parser, given.campaign, {each.name for each in CAMPAIGNS})
    _check_names(parser, given.mutant, {each.name for each in MUTANTS})
    is_partial = given.campaign is not None or given.mutant is not None
    return Choice(
        seed=random.SystemRandom().randrange(_MOST_SEEDS) if given.seed is None else given.seed,
        out=given.out,
        quick=given.quick,
        kinds=(given.database,) if given.database else KINDS,
        campaigns=(given.campaign or ()) if is_partial else None,
        mutants=(given.mutant or ()) if is_partial else None,
    )


def _check_names(parser: argparse.ArgumentParser, given: list[str] | None, known: set[str]) -> None:
    unknown = sorted(set(given or ()) - known)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}")


if __name__ == "__main__":
    main()
