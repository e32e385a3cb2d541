"""The checker: from the history of a campaign to what contradicts the promises, by pure functions.

A promise is a sentence and a function that finds contradictions to it (`tests.prove.checker.promises`). What the
service says of itself is never believed alone: the rows are compared with what clients, provider, subscribers and
streams saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.prove.checker.counts import counts_of, faults_of, notes_of
from tests.prove.checker.line import Line, lines_of
from tests.prove.checker.promise import Anomaly, Promise
from tests.prove.checker.promises import PROMISES
from tests.prove.checker.view import View

__all__ = ["PROMISES", "Anomaly", "Line", "Promise", "Verdict", "check", "lines_of"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker found: anomalies in the order of the promises, counts by name, and faults (done, hit)."""

    anomalies: tuple[Anomaly, ...]
    counts: dict[str, int]
    faults: dict[str, tuple[int, int]]
    notes: tuple[str, ...] = ()
    """What could not be checked."""

    @property
    def broken_promises(self) -> tuple[str, ...]:
        """The names of the promises with at least one anomaly, in their order."""
        return tuple(dict.fromkeys(anomaly.promise for anomaly in self.anomalies))


def check(lines: Sequence[Line]) -> Verdict:
    """Check a history against every promise. Raises `KeyError` or `ValueError` for a history that is incomplete."""
    view = View(lines)
    anomalies = tuple(anomaly for promise in PROMISES for anomaly in promise.anomalies(view))
    return Verdict(anomalies, counts_of(view), faults_of(view), notes_of(view))
