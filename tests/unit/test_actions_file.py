"""The actions file: the bundled one is valid, and the error for an invalid one lists every fault and the file."""

from pathlib import Path

import pytest

from receiver.domain.actions import build_input
from receiver.errors import SettingsError
from receiver.runs.actions_file import read_actions
from receiver.settings import load_settings
from tests.fakes.command import CLEAN, run_command
from tests.fakes.pipeline import ACTIONS

BROKEN = """
[actions."a"]
model = "m"
[actions.brands.extract]
model = "m"
[models]
"""


def fault(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_actions(path)
    assert caught.value.message.startswith(f"RINGBACK_ACTIONS_FILE: {path}: ")
    return caught.value.message


def test_the_bundled_file_defines_pi_s_actions() -> None:
    actions = read_actions(ACTIONS)
    names = ["brands.extract", "campaigns.generate", "campaigns.edit", "campaigns.localize_ad"]
    assert list(actions.named) == names
    assert {action.provider for action in actions.named.values()} == {"piapi"}
    assert build_input(actions.find("campaigns.generate"), {"prompt": "x"}) == {"locale": "en", "prompt": "x"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "actions.toml"
    path.write_bytes(ACTIONS.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    assert read_actions(path) == read_actions(ACTIONS)


def test_without_a_file_only_models_with_task_types_are_actions() -> None:
    actions = read_actions(None)
    assert actions.named == {}
    assert actions.find("kling:video_generation").model == "kling"


def test_the_error_lists_all_faults(tmp_path: Path) -> None:
    path = tmp_path / "actions.toml"
    path.write_text(BROKEN)
    message = fault(path)
    for words in ('actions."a".task_type: Field required', '[actions."brands.extract"]', "models: unknown table"):
        assert words in message


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"[actions", "not valid TOML: "), (b"\xff", "not a text in UTF-8"), (None, "No such file or directory")],
    ids=["no-toml", "no-text", "missing"],
)
def test_the_error_names_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "actions.toml"
    if content is not None:
        path.write_bytes(content)
    assert words in fault(path)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in fault(tmp_path)


def test_the_setting_is_a_path() -> None:
    settings = load_settings({"RINGBACK_ACTIONS_FILE": "deploy/actions.toml"}, env_file=None)
    assert settings.actions_file == Path("deploy/actions.toml")


async def test_the_service_does_not_start_with_an_invalid_file_and_creates_nothing(tmp_path: Path) -> None:
    environment = {**CLEAN, "RINGBACK_ACTIONS_FILE": "missing.toml"}
    status, out, err = await run_command("serve", "--port", "0", folder=tmp_path, environment=environment)
    assert (status, out) == (2, "")
    assert "RINGBACK_ACTIONS_FILE: missing.toml: No such file or directory" in err
    assert list(tmp_path.iterdir()) == []
