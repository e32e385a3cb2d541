"""The facts of the machine and of the code that a report needs. Nothing in them names the machine or a path."""

import os
import platform
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from tests.fakes.postgresql_programs import programs
from tests.prove.results import Facts

_ROOT = Path(__file__).resolve().parents[2]


def facts(command: str, seed: int, began: datetime, seconds: float, *, quick: bool) -> Facts:
    """Return the facts of a proof that began at `began` and took `seconds`."""
    return Facts(
        commit=_commit(),
        command=command,
        seed=seed,
        began=f"{began.astimezone(UTC):%Y-%m-%d %H:%M}",
        seconds=seconds,
        quick=quick,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        postgresql=_postgresql(),
        system=f"{platform.system()} {platform.machine()}",
        root=os.geteuid() == 0,
    )


def _commit() -> str:
    """Return the commit of the code, with a note if files differ from it; `unknown` outside of a Git repository."""
    found = _git("rev-parse", "--short=12", "HEAD")
    if not found:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{found} with uncommitted changes" if changed else found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _postgresql() -> str:
    folder = programs().folder
    done = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip().rpartition(" ")[2]
