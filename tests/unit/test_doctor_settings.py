"""What `ringback doctor` says of the settings."""

from pathlib import Path

import pytest

from receiver.cli.doctor.result import DoctorOutcome
from receiver.cli.doctor.settings_checks import read_settings, together
from receiver.settings import load_settings

PUBLIC = {"RINGBACK_PUBLIC_URL": "https://ringback.example.com"}
APART = {"RINGBACK_METRICS_ADDRESS": "127.0.0.1:9464"}


@pytest.mark.parametrize(
    ("given", "outcome", "word"),
    [
        ({"RINGBACK_PUBLIC_URL": "http://ringback.example.com", **APART}, "bad", "RINGBACK_PUBLIC_URL is http"),
        ({**PUBLIC, **APART, "RINGBACK_ALLOW_PRIVATE_TARGETS": "true"}, "look", "RINGBACK_ALLOW_PRIVATE_TARGETS"),
        ({**PUBLIC, **APART, "RINGBACK_ROOT_PATH": "/ringback"}, "look", "RINGBACK_ROOT_PATH is /ringback"),
        ({**PUBLIC, **APART, "RINGBACK_TRUSTED_PROXIES": "*"}, "look", "claim any address"),
        (PUBLIC, "look", "/metrics may be readable"),
        ({"RINGBACK_METRICS_ADDRESS": "0.0.0.0:9464"}, "look", "/metrics may be readable"),
        ({"RINGBACK_WORKERS": "2"}, "bad", "one process alone"),
        ({"RINGBACK_ALLOW_UNREADABLE_SECRETS": "true"}, "look", "no longer noticed"),
        ({"RINGBACK_PIAPI_WEBHOOK_SECRET": "short"}, "look", "could be guessed"),
        ({"RINGBACK_PIAPI_BASE_URL": "http://piapi.example.com"}, "bad", "RINGBACK_PIAPI_BASE_URL is http"),
    ],
)
def test_values_that_are_dangerous_together_are_told(given: dict[str, str], outcome: str, word: str) -> None:
    (found,) = together(load_settings(given, env_file=None))
    assert (found.outcome, word in found.found, bool(found.mend)) == (outcome, True, True)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {**PUBLIC, "RINGBACK_METRICS_TOKEN": "the-token-of-the-metrics"},
        {"RINGBACK_PUBLIC_URL": "https://example.com/ringback/", "RINGBACK_ROOT_PATH": "/ringback", **APART},
        {"RINGBACK_PUBLIC_URL": "http://127.0.0.1:8080", "RINGBACK_ALLOW_PRIVATE_TARGETS": "true"},
    ],
)
def test_nothing_is_told_of_what_is_right(given: dict[str, str]) -> None:
    assert list(together(load_settings(given, env_file=None))) == []


def test_every_fault_is_told_at_once_without_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("PORT", "planted"), ("PUBLC_URL", "planted"), ("PROVIDER_RATE", "planted")):
        monkeypatch.setenv(f"RINGBACK_{name}", value)
    settings, results = read_settings()
    assert settings is None
    assert {each.found.partition(":")[0] for each in results} == {
        "RINGBACK_PORT",
        "RINGBACK_PUBLC_URL",
        "RINGBACK_PROVIDER_RATE",
    }
    assert {each.outcome for each in results} == {DoctorOutcome.BAD}
    assert "planted" not in repr(results)


def test_a_file_of_settings_that_others_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".env"
    (tmp_path / "acme.toml").write_text('naem = "acme"\n')
    file.write_text(f"RINGBACK_ACTIONS_FILE=missing.toml\nRINGBACK_PROVIDERS_DIR={tmp_path}\n")
    for mode, count in ((0o644, 1), (0o600, 0)):
        file.chmod(mode)
        found = [each for each in read_settings()[1] if "has mode" in each.found]
        assert [each.outcome for each in found] == ["look"] * count
    told = [each.found for each in read_settings()[1] if each.outcome == "bad"]
    assert any("missing.toml" in each for each in told)
    assert any(f"{tmp_path}/acme.toml:1: unknown key naem; did you mean name?" in each for each in told)
