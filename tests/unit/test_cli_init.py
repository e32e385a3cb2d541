"""`ringback init`: the file that it writes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from receiver.cli.init import fault_of
from receiver.environment import read_values
from receiver.settings import load_settings
from tests.fakes.command_line import app

KEY = "pk #5'9\\q$a"
"""A key with all that a file .env reads as something else; no header can have it."""
USABLE = "k5T9#q'2\\Xv7Lm"


def init(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, answers: str = "") -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, ["init", *arguments], input=answers)


def test_answers_are_written_as_they_are_and_to_be_read_by_the_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = "postgresql://r:it's%20#1@db.example.com/ringback"
    answers = f"mysql://x\n{database}\nringback.example.com\nhttps://ringback.example.com/\n{KEY}\n{USABLE}\n"
    result = init(tmp_path, monkeypatch, answers=answers)
    assert result.exit_code == 0, result.output
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    settings = load_settings({}, tmp_path / ".env")
    assert (settings.database_url, settings.public_url) == (database, "https://ringback.example.com")
    assert settings.piapi_api_key is not None
    assert settings.piapi_api_key.get_secret_value() == USABLE
    assert settings.api_key is not None
    assert settings.secret_key is not None
    for fault in ("must be sqlite:///FILE", "must be an http", "has a blank"):
        assert fault in result.output
    for secret in (USABLE, KEY, settings.api_key.get_secret_value(), settings.secret_key.get_secret_value()):
        assert secret not in result.output
    assert result.output.index("ringback migrate") < result.output.index("ringback serve")


def test_a_file_is_left_as_it_is_without_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("RINGBACK_LOG_LEVEL=debug\n")
    assert init(tmp_path, monkeypatch, "--defaults").exit_code == 2
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(".env", "RINGBACK_LOG_LEVEL=debug\n")]


def test_force_keeps_a_copy_and_every_setting_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert init(tmp_path, monkeypatch, "--defaults").exit_code == 0
    file = tmp_path / ".env"
    first = read_values({}, file)
    assert set(first) == {"RINGBACK_API_KEY", "RINGBACK_DATABASE_URL"}
    file.write_text(file.read_text() + "RINGBACK_LOG_LEVEL=debug  # mine\nRINGBACK_PIAPI_API_KEY_FILE=/run/key\n")
    before = file.read_text()
    file.chmod(0o644)
    answers = "\nhttps://ringback.example.com\n"
    assert init(tmp_path, monkeypatch, "--force", answers=answers).exit_code == 0  # the key in a file is not asked for
    assert read_values({}, file) == first | {
        "RINGBACK_LOG_LEVEL": "debug",
        "RINGBACK_PIAPI_API_KEY_FILE": "/run/key",
        "RINGBACK_PUBLIC_URL": "https://ringback.example.com",
    }
    (copy,) = tmp_path.glob(".env.before-*")
    assert copy.read_text() == before
    assert (file.stat().st_mode & 0o777, copy.stat().st_mode & 0o777) == (0o600, 0o600)


def test_nothing_is_written_when_the_answers_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert init(tmp_path, monkeypatch, answers="\n").exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_the_file_cannot_have_is_refused() -> None:
    name = "RINGBACK_DATABASE_URL"
    assert "cannot have ${" in str(fault_of(name, {name: "sqlite:///${HOME}/r.db"}))
