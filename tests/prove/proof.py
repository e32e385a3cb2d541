"""A whole proof: the campaigns, the checker over their histories, the mutants, and the report."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.fork_server import ForkServer
from tests.prove.campaign import Campaign, Outcome, run_campaign
from tests.prove.checker import Verdict, check, lines_of
from tests.prove.facts import facts
from tests.prove.mutants.catalogue import MUTANTS
from tests.prove.mutants.mutating import Mutant, OutOfDate, mutated
from tests.prove.plan import CAMPAIGNS
from tests.prove.report import write_report
from tests.prove.results import CampaignResult, MutantResult, is_proven
from tests.prove.stores import KINDS, Kind, Stores

QUICK_MUTANTS = 4
"""How many mutants a quick proof has; which ones follows from the seed."""
_MUTANT_TRIES = 2
_MUTANT_CALM_SECONDS = 15.0
"""What does not end within this time does not end in a mutant."""

Job = Callable[[Stores], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be proven. `names` are campaigns and mutants; empty for all (of a quick proof: for its selection)."""

    seed: int
    command: str
    out: Path
    kinds: tuple[Kind, ...] = KINDS
    names: tuple[str, ...] = ()
    is_quick: bool = False
    jobs: int = 2
    """How many campaigns run side by side, each with its own database server."""


class Proof:
    """One proof under way; what it found is in `campaigns` and `mutants`, in the order of the plan."""

    def __init__(self, wish: Wish, forks: ForkServer) -> None:
        self.campaigns: dict[tuple[str, str], CampaignResult] = {}
        self.mutants: dict[str, MutantResult] = {}
        self.postgresql = "not used"
        self._wish = wish
        self._forks = forks
        self._folder = wish.out / str(wish.seed)
        self._began = time.monotonic()

    async def run(self) -> None:
        """Run everything that is wished, `jobs` at a time."""
        jobs = [self._campaign_job(campaign, kind) for campaign, kind in chosen_campaigns(self._wish)]
        jobs += [self._mutant_job(mutant) for mutant in chosen_mutants(self._wish)]
        waiting = iter(jobs)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._wish.jobs):
                group.create_task(self._work(waiting))

    async def _work(self, waiting: Any) -> None:
        stores = Stores()
        try:
            for job in waiting:
                await job(stores)
            self.postgresql = stores.version() or self.postgresql
        finally:
            await asyncio.to_thread(stores.close)

    def _campaign_job(self, campaign: Campaign, kind: Kind) -> Job:
        async def job(stores: Stores) -> None:
            rounds = campaign.rounds[0 if self._wish.is_quick else 1]
            outcome = await run_campaign(campaign, kind, self._wish.seed, self._folder, stores, self._forks, rounds)
            result = self._campaign_result(campaign, outcome, rounds)
            self.campaigns[campaign.name, kind] = result
            self._say(f"{campaign.name} on {kind}", result.seconds, _said_of(result))

        return job

    def _mutant_job(self, mutant: Mutant) -> Job:
        async def job(stores: Stores) -> None:
            for tried in range(1, _MUTANT_TRIES + 1):
                result = await self._try_mutant(mutant, stores, tried)
                if result.caught_by:
                    break
            self.mutants[mutant.name] = result
            said = f"caught by {result.caught_by[0]!r}" if result.caught_by else result.broken or "NOT CAUGHT"
            self._say(f"mutant that {mutant.name}", result.seconds, said)

        return job

    async def _try_mutant(self, mutant: Mutant, stores: Stores, tried: int) -> MutantResult:
        began = time.monotonic()
        campaign = Campaign(
            name=f"mutant-{mutant.name.replace(' ', '-')}",
            what=mutant.what,
            fault=mutant.fault,
            rounds=(mutant.rounds, mutant.rounds),
            settings=mutant.settings,
            calm_seconds=_MUTANT_CALM_SECONDS,
        )
        history = self._folder / f"{campaign.name}-{mutant.kind}.jsonl"
        broken, verdict = None, None
        copy = Path(tempfile.mkdtemp(prefix="ringback-mutant-"))
        try:
            forks = ForkServer(await asyncio.to_thread(mutated, mutant, copy))
            try:
                seed = self._wish.seed + tried - 1
                outcome = await run_campaign(campaign, mutant.kind, seed, self._folder, stores, forks, mutant.rounds)
            finally:
                await asyncio.to_thread(forks.close)
            broken, verdict = _checked(outcome)
        except OutOfDate as error:
            broken = str(error)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        anomalies = [each for each in verdict.anomalies if each.promise in mutant.promises] if verdict else []
        return MutantResult(
            mutant=mutant.name,
            what=mutant.what,
            database=mutant.kind,
            history=str(history.relative_to(self._wish.out)),
            seconds=time.monotonic() - began,
            caught_by=tuple(dict.fromkeys(each.promise for each in anomalies)),
            anomaly=anomalies[0] if anomalies else None,
            tries=tried,
            broken=broken,
        )

    def _campaign_result(self, campaign: Campaign, outcome: Outcome, rounds: int) -> CampaignResult:
        broken, verdict = _checked(outcome)
        return CampaignResult(
            campaign=campaign.name,
            what=campaign.what,
            database=outcome.kind,
            history=str(outcome.history.relative_to(self._wish.out)),
            rounds=rounds,
            seconds=outcome.seconds,
            anomalies=verdict.anomalies if verdict else (),
            counts=verdict.counts if verdict else {},
            faults=verdict.faults if verdict else {},
            notes=verdict.notes if verdict else (),
            broken=broken,
        )

    def _say(self, name: str, seconds: float, said: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {name}: {said} ({seconds:.0f} s)", flush=True)


async def prove(wish: Wish) -> bool:
    """Run a proof and write its report and its histories into `wish.out`; return whether everything holds."""
    began = datetime.now(UTC)
    forks = ForkServer()
    proof = Proof(wish, forks)
    try:
        await proof.run()
    finally:
        forks.close()
    campaigns = [proof.campaigns[campaign.name, kind] for campaign, kind in chosen_campaigns(wish)]
    mutants = [proof.mutants[mutant.name] for mutant in chosen_mutants(wish)]
    known = facts(
        command=wish.command,
        seed=wish.seed,
        began=began,
        is_quick=wish.is_quick,
        postgresql=proof.postgresql,
    )
    path = write_report(wish.out, known, campaigns, mutants)
    print(f"the report is in {path}")
    return is_proven(campaigns, mutants)


def chosen_campaigns(wish: Wish) -> list[tuple[Campaign, Kind]]:
    """Return which campaigns run on which databases. A quick proof has each on one, which follows from the seed."""
    found: list[tuple[Campaign, Kind]] = []
    for number, campaign in enumerate(CAMPAIGNS):
        if wish.names and campaign.name not in wish.names:
            continue
        kinds = [kind for kind in campaign.kinds if kind in wish.kinds]
        if wish.is_quick and kinds and not wish.names:
            kinds = [kinds[(wish.seed + number) % len(kinds)]]
        found += [(campaign, kind) for kind in kinds]
    return found


def chosen_mutants(wish: Wish) -> list[Mutant]:
    """Return which mutants are tried. A quick proof has a few, so that successive seeds have them all."""
    usable = [mutant for mutant in MUTANTS if mutant.kind in wish.kinds]
    if wish.names:
        return [mutant for mutant in usable if mutant.name in wish.names or "mutants" in wish.names]
    if not wish.is_quick:
        return usable
    first = wish.seed * QUICK_MUTANTS
    places = dict.fromkeys((first + offset) % len(usable) for offset in range(QUICK_MUTANTS))
    return [usable[place] for place in places]


def unknown_names(names: Sequence[str]) -> list[str]:
    """Return those of these names that are neither a campaign nor a mutant."""
    known = {campaign.name for campaign in CAMPAIGNS} | {mutant.name for mutant in MUTANTS} | {"mutants"}
    return [name for name in names if name not in known]


def _checked(outcome: Outcome) -> tuple[str | None, Verdict | None]:
    """Return what broke in the harness, and what the checker says; one of the two."""
    if outcome.error is not None:
        return outcome.error, None
    return None, check(lines_of(outcome.history))


def _said_of(result: CampaignResult) -> str:
    if result.broken:
        return f"BROKEN: {result.broken.splitlines()[0]}"
    if result.anomalies:
        return f"{len(result.anomalies)} ANOMALIES, first: {result.anomalies[0].promise}: {result.anomalies[0].text}"
    tasks, deliveries = result.counts["tasks at the end"], result.counts["deliveries received"]
    return f"holds, with {tasks} tasks and {deliveries} deliveries"
