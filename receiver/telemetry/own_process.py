"""What the metrics show of this process, by the number of its worker: several workers have no metrics of one process.

Where there is no `/proc` (macOS), memory and descriptors are not measured.
"""

import platform
import resource
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from receiver.clock import wall_now
from receiver.telemetry import sampled

_PROC = Path("/proc/self")
_PAGE = resource.getpagesize()
_started = wall_now().timestamp()
_cpu = 0.0


def note_build(database: str, schema: str) -> None:
    """Set what this process is; `database` is `sqlite` or `postgresql`, `schema` the revision that it needs."""
    sampled.build_info.labels(version("ringback"), platform.python_version(), database, schema).set(1)


def observe_process() -> None:
    """Read processor time, memory and descriptors of this process."""
    global _cpu
    used = time.process_time()
    sampled.worker_cpu.inc(used - _cpu)
    _cpu = used
    sampled.worker_start.set(_started)
    sampled.worker_max_fds.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    with suppress(FileNotFoundError):
        sampled.worker_memory.set(int((_PROC / "statm").read_text("ascii").split()[1]) * _PAGE)
        sampled.worker_open_fds.set(sum(1 for _ in (_PROC / "fd").iterdir()))
