"""The facts of the machine and of the code that a report names."""

import os
import platform
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from tests.prove.results import Facts

_ROOT = Path(__file__).resolve().parents[2]


def facts(*, command: str, seed: int, began: datetime, is_quick: bool, postgresql: str) -> Facts:
    """Return the facts of a proof that began at this time and ends now."""
    return Facts(
        commit=_commit(),
        command=command,
        seed=seed,
        began=f"{began:%Y-%m-%d %H:%M} UTC",
        seconds=(datetime.now(UTC) - began).total_seconds(),
        is_quick=is_quick,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        postgresql=postgresql,
        is_root=os.geteuid() == 0,
    )


def _commit() -> str:
    """Return the short name of the commit, and whether there are changes on top of it."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit} with uncommitted changes" if _git("status", "--porcelain") else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
