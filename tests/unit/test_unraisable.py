"""Exceptions that Python could not raise are each named in the report of the test during which they were found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAKS = """
import socket
import threading


class Broken:
    def __init__(self):
        self.parts = [1]

    def __del__(self):
        raise ValueError("broken in its end")


def leak():
    return socket.socket()


def test_two_at_once():
    leak()
    Broken()


def test_one():
    Broken()


def test_two_threads():
    threads = [threading.Thread(target=int, args=[word], name=word) for word in ("first", "second")]
    for thread in threads:
        thread.start()
        thread.join()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return output_of(tmp_path_factory.mktemp("plain"))


def output_of(folder: Path, *options: str) -> str:
    """Return what pytest prints for tests that leak, with the plugin that our tests use."""
    (folder / "test_leaks.py").write_text(LEAKS)
    (folder / "conftest.py").write_text('pytest_plugins = ["tests.fakes.unraisable"]\n')
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", *options, folder],
        # CI: lines of the summary are not cut to the width of a terminal.
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CI": "true", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


def summary_of(run: str, test: str) -> str:
    return next(line for line in run.splitlines() if line.startswith(f"FAILED test_leaks.py::{test} "))


def test_the_summary_names_each_of_several(run: str) -> None:
    line = summary_of(run, "test_two_at_once")
    assert "2 unraisable exceptions: ValueError: broken in its end (Exception ignored in: <function Broken" in line
    assert "; ResourceWarning: unclosed <socket.socket" in line


def test_the_summary_names_a_single_one(run: str) -> None:
    assert "- ValueError: broken in its end (Exception ignored in" in summary_of(run, "test_one")


def test_the_summary_names_what_each_thread_raised(run: str) -> None:
    line = summary_of(run, "test_two_threads")
    assert "2 thread exceptions: ValueError: invalid literal" in line
    assert "'first' (Exception in thread first)" in line
    assert "'second' (Exception in thread second)" in line


def test_each_has_a_section_that_names_the_running_test(run: str) -> None:
    broken, unclosed = run.split("- unraisable exception 1 of 2 -")[1].split("- unraisable exception 2 of 2 -")
    unclosed = unclosed.partition("____")[0]
    assert "ValueError: broken in its end" in broken
    assert "ResourceWarning" not in broken
    assert "ResourceWarning: unclosed <socket.socket" in unclosed
    for section in (broken, unclosed):
        assert "Found during: test_leaks.py::test_two_at_once (call)" in section
        assert "--trace-allocations" in section


def test_traced_memory_shows_where_each_was_allocated(tmp_path: Path) -> None:
    run = output_of(tmp_path, "--trace-allocations", "--tb=native", "-k", "two_at_once")
    broken, unclosed = run.split("- unraisable exception 1 of 2 -")[1].split("- unraisable exception 2 of 2 -")
    assert "    Broken()" in broken.split("Allocated at")[1]
    assert "return socket.socket()" in unclosed.split("Allocated at")[1]
