"""What a whole proof has found: the results of its campaigns and of its mutants, and the facts of the machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.prove.checker.promise import Anomaly


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignResult:
    """One campaign on one database. `history` is the path of its file, relative to the folder of the report.

    `skipped` says why it was not run, `broken` what broke in the harness itself; both are None for one that ran.
    """

    campaign: str
    database: str
    seed: int
    history: str = ""
    seconds: float = 0.0
    anomalies: tuple[Anomaly, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By fault: how many times it was done, and how many of them hit."""
    skipped: str | None = None
    broken: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantResult:
    """One mutant, and the promises that caught it (none: it was not caught). `broken` as of a campaign."""

    mutant: str
    sentence: str
    campaign: str
    database: str
    seed: int
    history: str = ""
    seconds: float = 0.0
    caught_by: tuple[str, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    broken: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Where and how the proof was made. Nothing in it names the machine or a path."""

    commit: str
    command: str
    seed: int
    began: str
    """The date and time, UTC."""
    seconds: float
    quick: bool
    cores: int
    python: str
    sqlite: str
    postgresql: str
    system: str
    root: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignText:
    """What the report says of a campaign: its name, and a sentence that says what is done to the service."""

    name: str
    sentence: str


def failed(campaigns: list[CampaignResult], mutants: list[MutantResult]) -> bool:
    """Whether the proof failed: an anomaly, a mutant that was not caught, or a harness that broke."""
    return any(each.anomalies or each.broken for each in campaigns) or any(not each.caught_by for each in mutants)
