"""What is wrong with a provider's file."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from receiver.errors import SettingsError


class FileFault(Struct, frozen=True):
    """What is wrong with a file, and in which line; None for a fault of the whole file."""

    path: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.message}"


class FaultyFile(SettingsError):
    """A file that cannot be used. The message has all of its faults, a line each."""

    def __init__(self, faults: Sequence[FileFault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
