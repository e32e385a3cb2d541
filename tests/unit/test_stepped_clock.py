"""The wall clock that tests step from outside."""

import subprocess
import sys
import time
from pathlib import Path

from tests.fakes.stepped_clock import SteppedClock

_TELL = """
import os, sys, time
from tests.fakes.stepped_clock import install
install(os.environ)
for _ in sys.stdin:
    print(time.time(), time.time_ns() / 1e9, time.monotonic(), flush=True)
"""


def test_another_process_sees_each_step_at_once_and_its_monotone_clock_does_not(tmp_path: Path) -> None:
    clock = SteppedClock(tmp_path / "clock")
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", _TELL],
        env={"PYTHONPATH": root, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for step in (0.0, 3600.0, -7200.0):
            clock.step(step)
            before = time.time(), time.monotonic()
            process.stdin.write("\n")
            process.stdin.flush()
            wall, wall_ns, monotone = map(float, process.stdout.readline().split())
            assert before[0] <= wall - clock.offset + 0.01
            assert wall - clock.offset <= time.time() + 0.01
            assert abs(wall_ns - wall) < 10
            assert before[1] <= monotone <= time.monotonic()
        process.stdin.close()
