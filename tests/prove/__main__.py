"""Prove that the service keeps its promises under faults, and write the report: `python -m tests.prove --help`.

The exit status is 1 if a promise was broken, if a mutant was not caught, or if the harness broke.
"""

import argparse
import asyncio
import random
import sys
from dataclasses import replace
from pathlib import Path

from tests.fakes.loopback import allow_loopback_only
from tests.prove.mutants.catalogue import MUTANTS
from tests.prove.plan import CAMPAIGNS
from tests.prove.proof import Wish, prove, unknown_names
from tests.prove.stores import KINDS

_MOST_SEEDS = 1_000_000


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := unknown_names(arguments.campaign):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(each.name for each in CAMPAIGNS)}")
    allow_loopback_only()
    wish = Wish(
        seed=arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(_MOST_SEEDS),
        command="",
        out=arguments.out,
        kinds=(arguments.database,) if arguments.database else KINDS,
        names=tuple(arguments.campaign),
        is_quick=arguments.quick,
        jobs=arguments.jobs,
    )
    wish = replace(wish, command=_command(wish))
    print(f"seed {wish.seed}: {wish.command}", flush=True)
    sys.exit(0 if asyncio.run(prove(wish)) else 1)


def _parser() -> argparse.ArgumentParser:
    mutants = ", ".join(f"'{each.name}'" for each in MUTANTS)
    parser = argparse.ArgumentParser(
        prog="python -m tests.prove",
        description="Prove that the service keeps its promises under faults, and write the report.",
        epilog=f"Campaigns: {', '.join(each.name for each in CAMPAIGNS)}. Mutants: mutants (all of them), {mutants}.",
    )
    parser.add_argument("--quick", action="store_true", help="a selection, in about two minutes")
    parser.add_argument("--seed", type=int, help="decides what happens and when; random by default, and printed")
    parser.add_argument("--database", choices=KINDS, help="only on this database")
    parser.add_argument("--campaign", nargs="+", default=[], metavar="NAME", help="only these campaigns or mutants")
    parser.add_argument("--out", type=Path, default=Path("proof"), help="folder of report and histories [proof]")
    parser.add_argument("--jobs", type=int, default=2, help="how many campaigns run side by side [2]")
    return parser


def _command(wish: Wish) -> str:
    """Return the command that does the same again."""
    if not wish.names and len(wish.kinds) == len(KINDS):
        return f"make prove{' QUICK=1' if wish.is_quick else ''} SEED={wish.seed}"
    words = ["python -m tests.prove", *(["--quick"] if wish.is_quick else []), f"--seed {wish.seed}"]
    words += [f"--database {wish.kinds[0]}"] if len(wish.kinds) == 1 else []
    words += ["--campaign", *(f"'{name}'" for name in wish.names)] if wish.names else []
    return " ".join(words)


if __name__ == "__main__":
    main()
