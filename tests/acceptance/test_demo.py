"""The main job end to end, as a user runs it: `ringback demo`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.no_database("the demo makes its own"), pytest.mark.long]

COMMAND = [sys.executable, "-m", "receiver.cli", "demo"]
HOSTILE = {
    "RINGBACK_DATABASE_URL": "sqlite:////nowhere/at/all.db",
    "RINGBACK_API_KEY": "the-users-own-key-0123456789",
    "RINGBACK_NONSENSE": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
}
"""Settings of the user that the demo may not use."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / ".env").write_text("RINGBACK_PUBLIC_URL=http://192.0.2.1\n")
    return subprocess.run(
        [*COMMAND, "--tasks", "60", "--json"],
        cwd=folder,
        env={**os.environ, **HOSTILE, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def summary(demo: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    return dict(json.loads(demo.stdout))


def test_nothing_is_lost_despite_all_faults(summary: dict[str, Any]) -> None:
    assert summary["ok"]
    assert summary["faults"] == []
    assert summary["tasks"]["wanted"] == summary["tasks"]["there"] == 60
    assert set(summary["tasks"]["by_status"]) <= {"completed", "failed", "cancelled"}
    assert sum(summary["tasks"]["by_status"].values()) == 60


def test_every_planned_fault_happens(summary: dict[str, Any]) -> None:
    assert summary["kills"] == 1
    assert summary["creates"]["lost_answers"] > 0
    assert summary["provider"]["webhooks_lost"] > 0
    assert summary["subscriber"]["refused"] > 0
    assert summary["subscriber"]["repeats_ignored"] > 0


def test_ends_are_reported_by_webhook_and_by_poll(summary: dict[str, Any]) -> None:
    assert summary["ended_by"]["webhook"] > 0
    assert summary["ended_by"]["poll"] > 0
    assert sum(summary["ended_by"].values()) == 60


def test_no_task_is_made_twice_and_no_subscriber_is_missed(summary: dict[str, Any]) -> None:
    assert summary["provider"]["tasks_made_twice"] == 0
    assert summary["subscriber"]["untold"] == 0
    assert summary["subscriber"]["forged"] == 0


def test_the_demo_prints_only_json_and_deletes_its_files(
    demo: subprocess.CompletedProcess[str], summary: dict[str, Any]
) -> None:
    assert demo.stderr == ""
    assert summary["logs"] is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processes from /proc")
def test_a_terminated_demo_stops_the_service_and_deletes_its_files(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*COMMAND, "--tasks", "60"], stdout=subprocess.PIPE, env=environment, text=True) as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if "creating 60 tasks" in line)
        children = _children(demo.pid)
        demo.send_signal(signal.SIGTERM)
        demo.stdout.read()
    assert demo.returncode == 143
    assert len(children) == 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(tmp_path.iterdir()) == []


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended since
            parent_id = stat.read_text().rpartition(")")[2].split()[1]
            found += [int(stat.parent.name)] if int(parent_id) == parent else []
    return found
