"""The history of a campaign: one JSON line for each thing that a client, the provider, a subscriber or a reader saw.

A line is `{"n", "at", "who", "what", ...}`: its number from 1, the seconds since the campaign began by a monotone
clock, who saw it, and what. README.md of this folder lists them all. The file has no secrets.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

Line = dict[str, Any]


class History:
    """Writes the lines of one campaign to a file, and counts them by who and what in `counts`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[int] = Counter()
        """The statuses that clients got."""
        self._began = time.monotonic()
        self._numbers = itertools.count(1)
        self._calls = itertools.count(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    @property
    def now(self) -> float:
        """Seconds since the campaign began."""
        return time.monotonic() - self._began

    def write(self, who: str, what: str, **fields: Any) -> None:
        """Add a line. A value that JSON has no form for is written as its text."""
        line = {"n": next(self._numbers), "at": round(self.now, 4), "who": who, "what": what, **fields}
        self._file.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
        self.counts[who, what] += 1
        if (who, what) == ("client", "answer"):
            self.answers[fields["status"]] += 1

    def call(self, op: str, **fields: Any) -> int:
        """Add the line of a client's call; return its number, which its answer repeats."""
        number = next(self._calls)
        self.write("client", "call", call=number, op=op, **fields)
        return number

    def count(self, who: str, what: str) -> int:
        """Return how many lines there are of this kind."""
        return self.counts[who, what]


def read(path: Path) -> Iterator[Line]:
    """Yield the lines of a history in order."""
    with path.open("rb") as file:
        for line in file:
            yield orjson.loads(line)
