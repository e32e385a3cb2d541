"""Processor time that processes have used, read from `/proc`. Linux only."""

import os
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds_with_children(pid: int) -> float:
    """Return the processor time of a process and its children in seconds; that of ended children is part of it."""
    ticks = _ticks(_fields(pid), with_ended=True)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                fields = _fields(int(entry.name))
                if int(fields[1]) == pid:
                    ticks += _ticks(fields, with_ended=False)
    return ticks / _TICKS


def _fields(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` after the command's name, which may have blanks: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()


def _ticks(fields: list[str], *, with_ended: bool) -> int:
    """Return user and system time, with those of children that were waited for."""
    return sum(int(field) for field in fields[11 : 15 if with_ended else 13])
