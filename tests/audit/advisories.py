"""The list of known vulnerabilities that is kept here, and which versions of a lock file are on it."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

_LOCKED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Advisory:
    """One vulnerability: versions of `package` that match `affected` have it, and `mended` is the first without it."""

    package: str
    id: str
    affected: str
    mended: str
    what: str


def read_advisories(path: Path) -> list[Advisory]:
    """Return the advisories of the list."""
    return [Advisory(**each) for each in tomllib.loads(path.read_text())["advisory"]]


def locked_versions(lock: str) -> dict[str, str]:
    """Return the version of each package in a lock file."""
    return dict(_LOCKED.findall(lock))


def hits(versions: Mapping[str, str], advisories: Sequence[Advisory]) -> Iterator[tuple[str, str, Advisory]]:
    """Yield each (package, version, advisory) where the locked version is affected."""
    for advisory in advisories:
        version = versions.get(advisory.package)
        if version is not None and SpecifierSet(advisory.affected).contains(version, prereleases=True):
            yield advisory.package, version, advisory
