"""One line of a history, as the checker reads it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `n` counts from 1, `at` is in seconds since the campaign began (monotone), `who` saw `what`."""

    n: int
    at: float
    who: str
    what: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """Return one of the other fields, or `default`."""
        return self.fields.get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def lines_of(path: Path) -> list[Line]:
    """Return the lines of a history's file."""
    with path.open("rb") as file:
        return list(parsed(orjson.loads(line) for line in file))


def parsed(documents: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    """Yield documents as lines; `n` and `at` may be left out, as in the tests of the checker."""
    for number, document in enumerate(documents, 1):
        rest = {name: value for name, value in document.items() if name not in ("n", "at", "who", "what")}
        n = int(document.get("n", number))
        yield Line(n, float(document.get("at", n)), str(document["who"]), str(document["what"]), rest)
