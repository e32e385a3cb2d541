"""Values from the command line, read and checked; help texts; wrong usage."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from receiver.cli.console import age, cell
from receiver.cli.failure import Failure, Status
from receiver.cli.inputs import json_object, pairs, secret_of, typed_pairs
from receiver.cli.service import path_segment
from receiver.cli.show import result_url
from receiver.serving.start import prepared
from receiver.settings import load_settings
from tests.fakes.command_line import app

COMMANDS = [
    "serve",
    "demo",
    "sandbox",
    "migrate",
    "listen",
    "report",
    *(f"task {name}" for name in ("create", "get", "list", "wait", "cancel", "retry")),
    *(f"run {name}" for name in ("create", "get", "cancel")),
    *(f"webhook {name}" for name in ("add", "list", "remove", "test", "replay", "recover", "rotate")),
    *(f"delivery {name}" for name in ("list", "get", "retry")),
    *(f"key {name}" for name in ("create", "list", "revoke")),
    *(f"organization {name}" for name in ("create", "list", "limits")),
    "audit list",
]


def test_json_is_read_from_the_value_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"prompt": "a cat"}')
    assert json_object('{"n": 2}', "--input") == {"n": 2}
    assert json_object(f"@{file}", "--input") == {"prompt": "a cat"}


def test_json_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"n": 3}')))
    assert json_object("@-", "--input") == {"n": 3}


@pytest.mark.parametrize("given", ["{", "[1]", '"text"', "", "@/not/there.json", "\udc80"])
def test_what_is_not_a_json_object_is_a_usage_error_that_names_the_option(given: str) -> None:
    with pytest.raises(Failure, match="--input") as failure:
        json_object(given, "--input")
    assert failure.value.status is Status.USAGE


def test_a_value_is_parsed_if_it_is_json_and_text_otherwise() -> None:
    given = ["prompt=a cat = nice", "n=2", "on=true", 'ids=["a"]', 'word="2"', "none=null", "empty="]
    assert typed_pairs(given, "-i") == {
        "prompt": "a cat = nice",
        "n": 2,
        "on": True,
        "ids": ["a"],
        "word": "2",
        "none": None,
        "empty": "",
    }


def test_metadata_filters_stay_text() -> None:
    assert pairs(["order=17"], "--metadata") == {"order": "17"}


@pytest.mark.parametrize("given", ["novalue", "=x"])
def test_a_pair_needs_a_key_and_a_value(given: str) -> None:
    with pytest.raises(Failure, match="key=value"):
        pairs([given], "--metadata")


def test_an_id_stays_one_path_segment() -> None:
    assert path_segment("a/b?c") == "a%2Fb%3Fc"
    for invalid in ("", ".", ".."):
        with pytest.raises(Failure):
            path_segment(invalid)


def test_an_id_that_is_not_utf_8_is_a_usage_error() -> None:
    with pytest.raises(Failure, match="not a text in UTF-8"):
        path_segment("\udce9")


def test_markup_and_control_characters_have_no_effect_in_a_cell() -> None:
    assert cell("[red]\x1b[2Jx").plain == r"[red]\x1b[2Jx"


def test_the_age_of_what_is_not_a_time_is_that_text() -> None:
    assert age("soon") == "soon"
    assert age(None) is None
    assert re.fullmatch(r"\d+d", age("2020-01-01T00:00:00Z") or "")


@pytest.mark.parametrize(
    ("output", "url"),
    [
        ({"video_url": "v", "image_url": "i"}, "v"),
        ({"image_url": "", "image_urls": ["a", "b"]}, "a"),
        ({"image_urls": []}, None),
        ({"image_url": ["a", "b"]}, "a"),
        ({"output_files": [{"url": "m", "kind": "model", "name": "model_file"}], "video_url": "v"}, "m"),
        ({"output_files": [{"url": "t", "kind": "text", "name": "lyrics"}, 7]}, "t"),
        ("text", None),
        (None, None),
    ],
)
def test_the_result_is_the_url_of_the_main_output(output: object, url: str | None) -> None:
    assert result_url({"output": output}) == url


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert "--install-completion" not in result.stdout


def test_the_version_is_that_of_the_distribution() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert re.fullmatch(r"ringback \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["task", "create"],
        ["task", "wait"],
        ["task", "list", "--status", "done"],
        ["task", "list", "--limit", "0"],
        ["key", "create", "--name", "x", "--scope", "root"],
        ["sandbox", "--lose-share", "2"],
        ["sandbox", "--port", "0", "--option", "nonsense=1"],
        ["sandbox", "--port", "0", "--option", "outcome=unheard-of"],
    ],
)
def test_wrong_usage_exits_2_and_prints_nothing_on_stdout(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr != ""


def test_all_wrong_settings_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGBACK_DATABASE_URL", "mysql://x")
    monkeypatch.setenv("RINGBACK_NONSENSE", "1")
    result = CliRunner().invoke(app, ["migrate"])
    assert result.exit_code == 2
    assert "RINGBACK_DATABASE_URL" in result.stderr
    assert "RINGBACK_NONSENSE" in result.stderr


def test_migrate_reports_the_version_before_and_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGBACK_DATABASE_URL", f"sqlite:///{tmp_path / 'x.db'}")
    assert "was at nothing and is now at" in CliRunner().invoke(app, ["migrate"]).stdout
    assert "already" in CliRunner().invoke(app, ["migrate"]).stdout
    again = CliRunner().invoke(app, ["migrate", "--json"])
    assert again.stdout.startswith("{")


def test_a_new_database_that_was_migrated_can_be_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGBACK_DATABASE_URL", f"sqlite:///{tmp_path / 'x.db'}")
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    with prepared(load_settings(), workers=1) as keys:
        assert len(keys.master_keys) == 1


def test_a_database_that_is_served_is_not_migrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGBACK_DATABASE_URL", f"sqlite:///{tmp_path / 'x.db'}")
    with prepared(load_settings(), workers=1):
        refused = CliRunner().invoke(app, ["migrate"])
    assert refused.exit_code == Status.UNREACHABLE
    assert "another Ringback process" in refused.stderr
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0


def test_a_secret_comes_from_a_file_or_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbfwhsec_abc\n")
    assert secret_of(None, str(file), "--secret") == "whsec_abc"
    assert secret_of("given", None, "--secret") == "given"
    assert secret_of(None, None, "--secret") is None
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b" from-stdin\r\n")))
    assert secret_of(None, "-", "--secret") == "from-stdin"


def test_on_a_terminal_a_secret_is_asked_for_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("receiver.cli.inputs.getpass", lambda prompt: f"typed at {prompt}")
    assert secret_of(None, "-", "--webhook-secret") == "typed at webhook-secret:"


@pytest.mark.parametrize(
    ("content", "given", "what"),
    [
        (b" \n", None, "empty"),
        (b"\xff\xfe\xfd", None, "UTF-8"),
        (b"x", "given", "not both"),
        (None, None, "No such file"),
    ],
)
def test_what_is_no_secret_is_a_usage_error(
    tmp_path: Path, content: bytes | None, given: str | None, what: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Failure, match=what) as caught:
        secret_of(given, str(file), "--secret")
    assert caught.value.status == Status.USAGE


def test_every_option_for_a_secret_has_one_for_its_file() -> None:
    """Other users of the machine can read a command line."""
    found = {}
    for name, command in commands(typer.main.get_command(app)):
        options = {option for parameter in command.params for option in parameter.opts}
        for option in options:
            if re.fullmatch(r"--.*(secret|key|token|password)", option):
                found[f"{name} {option}"] = f"{option}-file" in options
    assert len(found) >= 5
    assert all(found.values()), found


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{before}{name} ")
        yield f"{before}{name}", command
