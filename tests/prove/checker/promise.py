"""What a promise is to the checker: a sentence, and a function that finds what contradicts it in a history."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.prove.checker.line import Line
from tests.prove.checker.view import View


@dataclass(frozen=True, slots=True)
class Anomaly:
    """What contradicts a promise: `lines` are the numbers of the lines of the history that show it."""

    promise: str
    text: str
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a promise's function yields: a text with the ids, and the lines that show it."""

    text: str
    lines: tuple[int, ...] = ()


def found(text: str, *lines: Line | None) -> Found:
    """Return a finding; lines that are None are left out."""
    return Found(text, tuple(line.n for line in lines if line is not None))


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise: its short name, the sentence that the report prints, and what finds contradictions to it."""

    name: str
    sentence: str
    look: Callable[[View], Iterable[Found]]

    def anomalies(self, view: View) -> Iterator[Anomaly]:
        """Yield what contradicts the promise."""
        for each in self.look(view):
            yield Anomaly(self.name, each.text, each.lines)
