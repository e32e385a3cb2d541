"""What a mutant is, and how a copy of the service becomes one."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.prove.campaign import Fault
from tests.prove.stores import Kind

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("receiver", "models", "migrations")
"""What a copy of the service consists of."""


class OutOfDate(Exception):
    """The text that a mutant changes is not in the code exactly once: the code has changed since it was written."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault put into the service, and the faults and promises by which it must be found.

    In `file`, the text `old` is replaced by `new`. `fault` is what is done to the mutant on a database of `kind`, in
    `rounds` rounds, with `settings` over those of every campaign. It is caught if one of `promises` is broken.
    """

    name: str
    what: str
    """What the mutant does wrong, as a sentence of the report without its end."""
    file: str
    old: str
    new: str
    promises: tuple[str, ...]
    fault: Fault
    rounds: int = 1
    kind: Kind = "sqlite"
    settings: Mapping[str, str] = field(default_factory=dict)

    def text(self, root: Path = ROOT) -> str:
        """Return the text of the changed file. Raises `OutOfDate`."""
        text = (root / self.file).read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != 1:
            raise OutOfDate(f"mutant out of date: {self.name} changes a text that is {found} times in {self.file}")
        return text.replace(self.old, self.new)


def mutated(mutant: Mutant, folder: Path) -> Path:
    """Copy the service into `folder` and change it; return the folder to import it from. Raises `OutOfDate`."""
    changed = mutant.text()
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / mutant.file).write_text(changed, encoding="utf-8")
    return folder
