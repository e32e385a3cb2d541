"""A proof: chosen campaigns and mutants are run and checked; each result is printed as soon as it is known."""

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.fakes.fork_server import ForkServer
from tests.prove.campaign import Campaign, Extent, Outcome, run_campaign
from tests.prove.checker import Verdict, check, lines_of
from tests.prove.mutants.mutating import Mutant, OutOfDate, mutated
from tests.prove.plan import CAMPAIGNS, MUTANTS, QUICK_CAMPAIGNS, QUICK_MUTANTS
from tests.prove.results import CampaignResult, MutantResult
from tests.prove.schedule import LANES, Job, run_all
from tests.prove.stores import Kind, Stores

_KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a proof consists of. `campaigns` and `mutants` are names; None for all, or in a quick one for some."""

    seed: int
    out: Path
    quick: bool
    kinds: tuple[Kind, ...]
    campaigns: Sequence[str] | None = None
    mutants: Sequence[str] | None = None


@dataclass
class Proof:
    """Runs what was chosen. `campaigns` and `mutants` are the results."""

    choice: Choice
    campaigns: list[CampaignResult] = field(default_factory=list)
    mutants: list[MutantResult] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the histories are kept."""
        return self.choice.out / str(self.choice.seed)

    async def run(self) -> None:
        """Run all of it."""
        self._began = time.monotonic()
        self._stores, self._forks = Stores(), ForkServer()
        try:
            jobs = [*self._campaign_jobs(), *self._mutant_jobs()]
            self._total = len(jobs)
            await run_all(jobs)
        finally:
            self._sort()
            self._forks.close()
            self._stores.close()

    def _campaign_jobs(self) -> list[Job]:
        def job(campaign: Campaign, kind: Kind) -> Job:
            return Job(kind, lambda: self._campaign(campaign, kind))

        return [job(campaign, kind) for campaign, kind in self._chosen_campaigns()]

    def _chosen_campaigns(self) -> list[tuple[Campaign, Kind]]:
        names = self.choice.campaigns
        each = [(campaign, kind) for campaign in CAMPAIGNS for kind in campaign.kinds if kind in self.choice.kinds]
        if names is not None:
            return [(campaign, kind) for campaign, kind in each if campaign.name in names]
        if not self.choice.quick:
            return each
        rng = random.Random(f"{self.choice.seed} campaigns")
        fixed = [(campaign, kind) for campaign, kind in each if (campaign.name, kind) in QUICK_CAMPAIGNS]
        others = [one for one in each if one not in fixed]
        return fixed + [
            rng.choice(of_kind) for kind in self.choice.kinds if (of_kind := [one for one in others if one[1] == kind])
        ]

    def _mutant_jobs(self) -> list[Job]:
        def job(mutant: Mutant, number: int) -> Job:
            return Job(mutant.kind, lambda: self._mutant(mutant, number))

        numbered = [(number, each) for number, each in enumerate(MUTANTS, 1) if each.kind in self.choice.kinds]
        if self.choice.mutants is not None:
            numbered = [(number, each) for number, each in numbered if each.name in self.choice.mutants]
        elif self.choice.quick:
            rng = random.Random(f"{self.choice.seed} mutants")
            numbered = rng.sample(numbered, min(QUICK_MUTANTS, len(numbered)))
        return [job(mutant, number) for number, mutant in numbered]

    async def _campaign(self, campaign: Campaign, kind: Kind) -> None:
        if campaign.impossible is not None:
            self._skip(campaign, kind, campaign.impossible)
            return
        quick = self.choice.quick
        extent = Extent(campaign.rounds[0 if quick else 1], self._fault_seconds())
        outcome = await run_campaign(campaign, kind, self.choice.seed, self.folder, self._stores, self._forks, extent)
        verdict = _verdict(outcome)
        result = CampaignResult(
            campaign=campaign.name,
            what=campaign.what,
            database=_KINDS[kind],
            seed=self.choice.seed,
            rounds=outcome.rounds,
            history=str(outcome.history.relative_to(self.choice.out)),
            seconds=outcome.seconds,
            anomalies=verdict.anomalies,
            counts=verdict.counts,
            faults=verdict.faults,
            notes=verdict.notes,
            broken=outcome.error,
        )
        self.campaigns.append(result)
        done = sum(done for done, _ in verdict.faults.values())
        hit = sum(hit for _, hit in verdict.faults.values())
        found = result.broken or f"{done} faults, {hit} hit, {_number(len(result.anomalies))}"
        self._tell(f"{campaign.name} on {_KINDS[kind]}: {found}", outcome.seconds)

    def _skip(self, campaign: Campaign, kind: Kind, why: str) -> None:
        result = CampaignResult(
            campaign=campaign.name,
            what=campaign.what,
            database=_KINDS[kind],
            seed=self.choice.seed,
            rounds=0,
            notes=(f"not tried: {why}",),
        )
        self.campaigns.append(result)
        self._tell(f"{campaign.name} on {_KINDS[kind]}: skipped, {why}", 0)

    async def _mutant(self, mutant: Mutant, number: int) -> None:
        """Run a mutant until it is caught; what a fault meets is chance, so that it is tried more than once."""
        began = time.monotonic()
        result = MutantResult(
            mutant=mutant.name, what=mutant.what, database=_KINDS[mutant.kind], seed=self.choice.seed, tries=0
        )
        while not result.caught_by and not result.broken and result.tries < _MUTANTS_TRIES:
            result = await self._try_mutant(mutant, number, result)
        self.mutants.append(result)
        found = result.broken or (f"caught by {', '.join(result.caught_by)}" if result.caught_by else "NOT CAUGHT")
        self._tell(f"mutant that {mutant.name}: {found}", time.monotonic() - began)

    async def _try_mutant(self, mutant: Mutant, number: int, before: MutantResult) -> MutantResult:
        try:
            outcome = await self._run_mutant(mutant, number, self.choice.seed + before.tries)
        except OutOfDate as error:
            return replace(before, tries=before.tries + 1, broken=str(error))
        caught = [each for each in _verdict(outcome).anomalies if each.promise in mutant.promises]
        return replace(
            before,
            tries=before.tries + 1,
            seed=self.choice.seed + before.tries,
            history=str(outcome.history.relative_to(self.choice.out)),
            seconds=before.seconds + outcome.seconds,
            caught_by=tuple(dict.fromkeys(each.promise for each in caught)),
            anomaly=caught[0] if caught else None,
            broken=outcome.error,
        )

    async def _run_mutant(self, mutant: Mutant, number: int, seed: int) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="ringback-mutant-") as folder:
            forks = ForkServer(mutated(mutant, Path(folder)))
            try:
                campaign = Campaign(
                    name=f"mutant-{number:02}",
                    what=mutant.what,
                    fault=mutant.fault,
                    rounds=(mutant.rounds, mutant.rounds),
                    settings=mutant.settings,
                    calm_seconds=_MUTANTS_CALM_SECONDS,
                )
                extent = Extent(mutant.rounds, self._fault_seconds())
                return await run_campaign(campaign, mutant.kind, seed, self.folder, self._stores, forks, extent)
            finally:
                forks.close()

    def _fault_seconds(self) -> float:
        """Return for how long the next campaign begins rounds of faults: its share of the time that is left."""
        whole = _QUICK_SECONDS if self.choice.quick else _WHOLE_SECONDS
        left = whole - (time.monotonic() - self._began)
        jobs = self._total - len(self.campaigns) - len(self.mutants)
        share = left * min(LANES, jobs) / jobs * _FAULTY_SHARE
        return min(max(share, _SHORTEST_SECONDS), _LONGEST_SECONDS)

    def _sort(self) -> None:
        """Put the results in the order of the plan."""
        campaigns = [(each.name, _KINDS[kind]) for each in CAMPAIGNS for kind in each.kinds]
        self.campaigns.sort(key=lambda result: campaigns.index((result.campaign, result.database)))
        mutants = [each.name for each in MUTANTS]
        self.mutants.sort(key=lambda result: mutants.index(result.mutant))

    def _tell(self, text: str, seconds: float) -> None:
        done = len(self.campaigns) + len(self.mutants)
        passed = int(time.monotonic() - self._began)
        print(
            f"[{done:2}/{self._total}] {passed // 60:2}:{passed % 60:02}  {text.splitlines()[0]}  ({seconds:.0f} s)",
            flush=True,
        )


_QUICK_SECONDS, _WHOLE_SECONDS = 130.0, 24 * 60.0
"""How long a proof should take. On a busy machine it does less in this time."""
_SHORTEST_SECONDS, _LONGEST_SECONDS = 3.0, 60.0
_FAULTY_SHARE = 0.5
"""The share of a campaign's time in which faults begin; the rest is for its start, for calm and for the check."""
_MUTANTS_CALM_SECONDS = 15.0
"""A mutant may never come to rest; what is open after this time is an anomaly."""
_MUTANTS_TRIES = 2


def _verdict(outcome: Outcome) -> Verdict:
    """Check a history, unless its campaign broke off: then it is incomplete."""
    return check(lines_of(outcome.history)) if outcome.error is None else Verdict((), {}, {})


def _number(anomalies: int) -> str:
    return "no anomaly" if not anomalies else f"{anomalies} ANOMALIES"
