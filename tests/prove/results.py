"""What a whole proof has found: the results of its campaigns and of its mutants, and the facts of the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.prove.checker.promise import Anomaly


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignResult:
    """One campaign on one database. `history` is the path of its file, relative to the folder of the report.

    `broken` says what broke in the harness itself; None for a campaign that was carried through.
    """

    campaign: str
    what: str
    """What is done in it, as a sentence of the report without its end."""
    database: str
    seed: int
    rounds: int
    history: str = ""
    seconds: float = 0.0
    anomalies: tuple[Anomaly, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By fault: how many times it was done, and how many of them hit."""
    notes: tuple[str, ...] = ()
    """What was left out in it."""
    broken: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantResult:
    """One mutant, and the promises that caught it (none: it was not caught). `broken` as of a campaign.

    `tries` is how many times it was run, with seeds of their own, until it was caught.
    """

    mutant: str
    what: str
    database: str
    seed: int
    history: str = ""
    seconds: float = 0.0
    caught_by: tuple[str, ...] = ()
    anomaly: Anomaly | None = None
    """The first one that caught it."""
    tries: int = 1
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


def failed(campaigns: Sequence[CampaignResult], mutants: Sequence[MutantResult]) -> bool:
    """Whether the proof failed: an anomaly, a mutant that was not caught, or a harness that broke."""
    return any(each.anomalies or each.broken for each in campaigns) or any(not each.caught_by for each in mutants)
