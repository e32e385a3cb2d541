"""The files of declared providers: those that ship, and those of `RINGBACK_PROVIDERS_DIR`."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from receiver.errors import SettingsError
from receiver.providers.api import API
from receiver.providers.declared.faults import FaultyFile, FileFault

SHIPPED = Path(__file__).parents[3] / "deploy" / "providers"
"""The package has a copy in the same place, as of the guides."""
_SETTING = "RINGBACK_PROVIDERS_DIR"


def names_in(folder: Path) -> tuple[str, ...]:
    """Return the names of the providers that a folder declares, without reading their files."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


class KnownAPIs(Mapping[str, API]):
    """The APIs by name: those in code, and those that files declare, each read when it is first asked for.

    Most installations use one or two of those that ship, and reading all would be the longest part of a start.
    """

    def __init__(self, coded: Mapping[str, API], paths: Mapping[str, Path]) -> None:
        self._known = dict(coded)
        self._paths = paths

    def __getitem__(self, name: str) -> API:
        if name not in self._known:
            self._known[name] = _read(self._paths[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._known, **self._paths})

    def __len__(self) -> int:
        return len({**self._known, **self._paths})

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._paths


def read_apis(coded: Mapping[str, API], folder: Path | None, *, used: Iterable[str], taken: Iterable[str]) -> KnownAPIs:
    """Return all APIs. The files in `folder` add to those that ship, or replace them, and are read now.

    `used` are those of which there is an account, which are read now too; `taken` are names that no file may have.
    Raises `SettingsError`, which names every fault of every file.
    """
    own = _own_files(folder) if folder is not None else {}
    faults = [
        FileFault(own[name], None, f"{name} is a provider already; name yours otherwise")
        for name in sorted({*coded, *taken} & own.keys())
    ]
    known = KnownAPIs(coded, {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))} | own)
    for name in sorted({*own, *(set(used) & set(known))} - {*coded, *taken}):
        try:
            known[name]
        except FaultyFile as error:
            faults += error.faults
    if faults:
        raise FaultyFile(faults)
    return known


def _read(path: Path) -> API:
    # Imported here, so that a start waits for it only where a file is used.
    from receiver.providers.declared.api import DeclaredAPI
    from receiver.providers.declared.reading import read_file

    return DeclaredAPI(read_file(path))


def _own_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise SettingsError(f"{_SETTING}: {folder}: no such folder")
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
