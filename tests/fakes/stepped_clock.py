"""A wall clock that a test steps from outside, for the real service in its own process.

The clocks of a machine belong to all its processes, so a test cannot set them. Instead the process that is to have a
wrong clock calls `install` before the service starts: its `time.time` and `time.time_ns`, from which
`receiver.clock` takes the wall clock, are then off by the seconds that a file holds. The test writes them there with
`SteppedClock.step` or `set`, at any time, and the process sees them at once. The monotone clocks stay as they are, as
they do when somebody sets a machine's clock.

`tests.fakes.fork_server` installs it in every service whose environment has `CLOCK_FILE`; without the fork server run
`python -m tests.fakes.stepped_clock serve ...` in place of `ringback serve ...`. Only the process itself is off:
workers that a supervisor starts (`--workers`) are not.
"""

import mmap
import os
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

CLOCK_FILE = "TEST_CLOCK_FILE"
"""The environment variable with the path of the file."""
_SECONDS = struct.Struct("<d")


class SteppedClock:
    """The offset of one or more processes' wall clocks, in the file `path`, which is made with 0 if it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if not self.path.exists():
            self.set(0.0)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process has this clock."""
        return {CLOCK_FILE: str(self.path)}

    @property
    def offset(self) -> float:
        """The seconds by which the clock is ahead; negative if it is behind."""
        return float(_SECONDS.unpack(self.path.read_bytes())[0])

    def set(self, seconds: float) -> None:
        """Make the clock `seconds` ahead of the machine's."""
        # In place, because the processes have the file mapped; 8 aligned bytes are written whole.
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(_SECONDS.pack(seconds))

    def step(self, seconds: float) -> None:
        """Step the clock by `seconds` from where it is."""
        self.set(self.offset + seconds)


def install(environment: Mapping[str, str]) -> None:
    """Give this process the clock that `environment` names, if it names one."""
    if CLOCK_FILE not in environment:
        return
    with Path(environment[CLOCK_FILE]).open("rb") as file:
        offset = mmap.mmap(file.fileno(), _SECONDS.size, access=mmap.ACCESS_READ)
    seconds, nanoseconds = time.time, time.time_ns
    patch.object(time, "time", lambda: seconds() + _SECONDS.unpack(offset)[0]).start()
    patch.object(time, "time_ns", lambda: nanoseconds() + int(_SECONDS.unpack(offset)[0] * 1e9)).start()


if __name__ == "__main__":
    from receiver.cli import main as ringback

    install(os.environ)
    sys.argv[0] = "ringback"
    ringback()
