"""What a proof has found: the results of its campaigns and of its mutants, and the facts of where it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.prove.checker import Anomaly


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignResult:
    """One campaign on one database. `history` is the path of its file, relative to the folder of the report.

    `broken` says what broke in the harness itself; None for a campaign that was carried through.
    """

    campaign: str
    what: str
    database: str
    history: str
    rounds: int
    seconds: float
    anomalies: tuple[Anomaly, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By fault: how many times it was done, and how many of them hit."""
    notes: tuple[str, ...] = ()
    """What was left out in it."""
    broken: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantResult:
    """One mutant, and the promises that caught it: none if it was not caught. `tries` counts the seeds it took."""

    mutant: str
    what: str
    database: str
    history: str
    seconds: float
    caught_by: tuple[str, ...] = ()
    anomaly: Anomaly | None = None
    """The first that caught it."""
    tries: int = 1
    broken: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Where and how a proof was made. Nothing in it names a machine or a path."""

    commit: str
    command: str
    seed: int
    began: str
    """The date and time, UTC."""
    seconds: float
    is_quick: bool
    cores: int
    system: str
    python: str
    sqlite: str
    postgresql: str
    is_root: bool


def is_proven(campaigns: Sequence[CampaignResult], mutants: Sequence[MutantResult]) -> bool:
    """Whether no promise was broken, every mutant was caught, and nothing of the harness broke."""
    campaigns_hold = not any(each.anomalies or each.broken for each in campaigns)
    return campaigns_hold and all(each.caught_by and not each.broken for each in mutants)
