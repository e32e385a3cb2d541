"""The first admin key goes to a terminal, or to a file for its owner alone; never into what is logged."""

from pathlib import Path

import pytest

from receiver.serving.first_key import hand_over
from receiver.settings import Settings, load_settings

KEY = "rb_the-first-admin-key"


def settings_of(folder: Path, **more: str) -> Settings:
    return load_settings({"RINGBACK_DATABASE_URL": f"sqlite:///{folder}/ringback.db", **more}, env_file=None)


def test_without_a_terminal_it_is_in_a_file_and_in_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    for _ in range(2):  # a later start finds it there
        hand_over(settings_of(tmp_path), KEY, said.append)
    file = tmp_path / "ringback.db.admin-key"
    assert (file.read_text(), file.stat().st_mode & 0o777) == (f"{KEY}\n", 0o600)
    printed = capsys.readouterr()
    assert (said, printed.out) == ([], "")
    assert str(file) in printed.err
    assert KEY not in printed.err


def test_on_a_terminal_it_is_shown_and_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    said: list[str] = []
    hand_over(settings_of(tmp_path), KEY, said.append)
    assert KEY in said[0]
    assert list(tmp_path.iterdir()) == []
    assert KEY not in capsys.readouterr().err


def test_a_file_that_is_named_gets_it_on_a_terminal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    file, said = tmp_path / "elsewhere", list[str]()
    hand_over(settings_of(tmp_path, RINGBACK_FIRST_KEY_FILE=str(file)), KEY, said.append)
    assert (file.read_text().strip(), said) == (KEY, [])


def test_a_link_or_a_file_that_others_can_read_is_replaced_by_one_that_they_cannot(tmp_path: Path) -> None:
    target, file = tmp_path / "target", tmp_path / "ringback.db.admin-key"
    target.write_text("somebody's file")
    file.symlink_to(target)
    for _ in range(2):
        hand_over(settings_of(tmp_path), KEY, print)
        assert not file.is_symlink()
        assert (file.read_text().strip(), file.stat().st_mode & 0o777) == (KEY, 0o600)
        file.chmod(0o644)
    assert target.read_text() == "somebody's file"


def test_a_file_that_cannot_be_written_is_logged_without_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_over(settings_of(tmp_path, RINGBACK_FIRST_KEY_FILE=str(tmp_path / "none" / "key")), KEY, print)
    printed = capsys.readouterr()
    assert "RINGBACK_FIRST_KEY_FILE" in printed.err
    assert KEY not in printed.err + printed.out
