"""The weather of the provider: what goes wrong with its answers and webhooks, as shares from 0 to 1. Pure."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Answering:
    """How one call is answered. `delay` is in seconds; `makes` says whether the call does what was asked.

    `fault` names the fault, if it is one.
    """

    status: int = 200
    makes: bool = True
    cut: bool = False
    delay: float = 0.0
    fault: str | None = None


@dataclass(frozen=True)
class Life:
    """How long a task is pending and processing, in seconds, and whether it fails."""

    pending: float
    processing: float
    fails: bool


SUBMIT_FAULTS: Mapping[str, Answering] = {
    "500 after": Answering(status=500),
    "502 after": Answering(status=502),
    "504 after": Answering(status=504),
    "500 before": Answering(status=500, makes=False),
    "503": Answering(status=503, makes=False),
    "429": Answering(status=429, makes=False),
    "cut after": Answering(cut=True),
    "cut before": Answering(makes=False, cut=True),
    "slow": Answering(delay=1.0),
    "too slow": Answering(delay=3.0),
}
"""What may become of a create call; "after" means that the task was made. The caller does not wait for "too slow"."""
LOOK_FAULTS: Mapping[str, Answering] = {
    "500": Answering(status=500, makes=False),
    "503": Answering(status=503, makes=False),
    "429": Answering(status=429, makes=False),
    "cut": Answering(makes=False, cut=True),
    "slow": Answering(delay=1.0),
}
"""What may become of a poll, of a list and of a cancel."""


@dataclass
class Weather:
    """Shares of what goes wrong. The default is fair weather."""

    submit: Mapping[str, float] = field(default_factory=dict)
    """Shares by the names of `SUBMIT_FAULTS`."""
    look: Mapping[str, float] = field(default_factory=dict)
    """Shares by the names of `LOOK_FAULTS`."""
    fails: float = 0.12
    """The share of tasks that fail."""
    long: float = 0.05
    """The share of tasks that take ten times as long."""
    slow_start: float = 0.2
    """The share of tasks that are pending for longer, and so can be cancelled."""
    hidden: float = 0.0
    """The share of tasks that are not found by the first one to three looks."""
    lost: float = 0.05
    """The share of webhooks that are never sent."""
    doubled: float = 0.0
    late: float = 0.0
    """The share of webhooks that are sent up to two seconds late, and so in another order."""
    repeated_later: float = 0.0
    """The share of webhooks that are sent once more, some seconds later."""
    forged: float = 0.0
    """The share of webhooks beside which one with a wrong secret claims another end."""

    def of_create(self, rng: random.Random) -> Answering:
        """Draw how a create call is answered."""
        return _drawn(self.submit, SUBMIT_FAULTS, rng)

    def of_look(self, rng: random.Random) -> Answering:
        """Draw how a poll, a list or a cancel is answered."""
        return _drawn(self.look, LOOK_FAULTS, rng)

    def life(self, rng: random.Random) -> Life:
        """Draw the life of a task."""
        pending = rng.uniform(0.5, 2.0) if rng.random() < self.slow_start else 0.02
        processing = rng.uniform(0.05, 0.5) * (10 if rng.random() < self.long else 1)
        return Life(pending, processing, rng.random() < self.fails)

    def hidden_looks(self, rng: random.Random) -> int:
        """Draw how many looks do not find a new task."""
        return rng.randint(1, 3) if rng.random() < self.hidden else 0


def _drawn(shares: Mapping[str, float], faults: Mapping[str, Answering], rng: random.Random) -> Answering:
    drawn = rng.random()
    for name, share in shares.items():
        if drawn < share:
            return replace(faults[name], fault=name)
        drawn -= share
    return Answering()
