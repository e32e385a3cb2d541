"""Shell completion: the script for each shell, and what it asks `ringback` for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.command import CLEAN

COMMAND = [sys.executable, "-c", "from receiver.cli import main; main()"]
NAMED = {**CLEAN, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""The shell is named, where it would be the one that calls."""
ASKED = {
    "bash": {"_RINGBACK_COMPLETE": "complete_bash", "COMP_WORDS": "ringback task ex", "COMP_CWORD": "2"},
    "zsh": {"_RINGBACK_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "ringback task ex"},
    "fish": {
        "_RINGBACK_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": "ringback task ex",
    },
}


def ringback(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    given = {**environment, "HOME": str(folder), "PATH": os.environ["PATH"]}
    ran = subprocess.run([*COMMAND, *arguments], env=given, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout


@pytest.mark.parametrize("shell", ASKED)
def test_each_shell_gets_its_script_and_completes_commands(shell: str, tmp_path: Path) -> None:
    script = ringback(tmp_path, NAMED, "--show-completion", shell)
    assert f"complete_{shell}" in script
    installed = ringback(tmp_path, NAMED, "--install-completion", shell)
    files = [each.read_text() for each in tmp_path.rglob("*") if each.is_file()]
    assert f"{shell} completion installed" in installed
    assert any(f"complete_{shell}" in text for text in files)
    assert "export" in ringback(tmp_path, {**CLEAN, **ASKED[shell]})
