"""The settings: read once, checked together, frozen; and the log records that they ask for."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from receiver.errors import SettingsError
from receiver.settings import Settings, client_settings, load_settings

SECRETS = {
    "RINGBACK_SECRET_KEY": "tooshort",
    "RINGBACK_API_KEY": "alsoshort",
    "RINGBACK_DATABASE_URL": "mysql://me:hunter2@host/db",
    "RINGBACK_PIAPI_BASE_URL": "ftp://me:hunter2@host",
}
CONTRACT = {
    "database_url": "sqlite:///ringback.db",
    "secret_key": None,
    "api_key": None,
    "public_url": None,
    "piapi_base_url": "https://api.piapi.ai",
    "piapi_upload_url": None,
    "piapi_api_key": None,
    "piapi_webhook_secret": None,
    "allow_private_targets": False,
    "allowed_targets": "",
    "trusted_proxies": "127.0.0.1,unix",
    "root_path": "",
    "poll_first_seconds": 15,
    "poll_max_seconds": 300,
    "task_timeout_seconds": 86400,
    "provider_rate": "10/s",
    "forward_timeout_seconds": 300,
    "max_body_bytes": 1048576,
    "retry_schedule": "0,5,300,1800,7200,18000,36000,50400,72000,86400",
    "delivery_timeout_seconds": 20,
    "retention_days": 90,
}
"""The defaults that README names."""


def load(**environment: str) -> Settings:
    return load_settings({f"RINGBACK_{name.upper()}": value for name, value in environment.items()}, env_file=None)


def faults(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**environment)
    return sorted(caught.value.message.splitlines())


def test_the_defaults_are_those_that_the_readme_names() -> None:
    settings = load()
    assert {name: getattr(settings, name) for name in CONTRACT} == CONTRACT


def test_every_setting_is_read_from_its_name() -> None:
    given = {
        "database_url": "sqlite:////data/ringback.db",
        "poll_first_seconds": "0.5",
        "allow_private_targets": "true",
        "retention_days": "0",
        "max_body_bytes": "2048",
        "log_format": "json",
    }
    settings = load(**given)
    assert str(settings.sqlite_path) == "/data/ringback.db"
    assert (settings.poll_first_seconds, settings.allow_private_targets) == (0.5, True)
    assert (settings.retention_days, settings.max_body_bytes, settings.log_format) == (0, 2048, "json")


def test_all_faults_are_reported_together() -> None:
    named = faults(
        poll_first_seconds="-1", max_body_bytes="many", provider_rate="10 a day", public_url="here", log_format="xml"
    )
    assert [fault.split(":")[0] for fault in named] == [
        "RINGBACK_LOG_FORMAT",
        "RINGBACK_MAX_BODY_BYTES",
        "RINGBACK_POLL_FIRST_SECONDS",
        "RINGBACK_PROVIDER_RATE",
        "RINGBACK_PUBLIC_URL",
    ]
    assert all(len(fault.split(": ", 1)[1]) > 5 for fault in named)


def test_an_unknown_setting_is_reported_together_with_the_others() -> None:
    assert faults(pol_first_seconds="1", retention_days="-1") == [
        "RINGBACK_POL_FIRST_SECONDS: unknown setting; correct the name or remove it",
        "RINGBACK_RETENTION_DAYS: Input should be greater than or equal to 0",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"database_url": "mysql://host/db"},
        {"secret_key": "0123456789abcdef,short"},
        {"secret_key": " , "},
        {"api_key": "short"},
        {"public_url": "ringback.example.com"},
        {"public_url": "https://"},
        {"piapi_base_url": "ftp://api.piapi.ai"},
        {"root_path": "ringback"},
        {"root_path": "/ring back"},
        {"root_path": "/ring//back"},
        {"provider_rate": "0/s"},
        {"provider_rate": "10/d"},
        {"retry_schedule": "0,soon"},
        {"retry_schedule": "-1"},
        {"retry_schedule": ","},
        {"allowed_targets": "10.0.0.0/99"},
        {"cors_origins": "app.example.com"},
        {"cors_origins": "https://app.example.com/path"},
        {"cors_origins": "https://*.example.com"},
        {"cors_origins": "https://a.example, https://b.example:port"},
        {"cors_origins": "https://a:b@a.example"},
        {"cors_origins": "null"},
        {"cors_origins": "https://"},
        {"poll_first_seconds": "0"},
        {"retention_days": "1.5"},
        {"retention_days": "1000000"},
        {"allow_private_targets": "perhaps"},
        {"writer_queue": "0"},
    ],
    ids=str,
)
def test_a_wrong_value_is_a_fault(wrong: dict[str, str]) -> None:
    (name,) = wrong
    (fault,) = faults(**wrong)
    assert fault.startswith(f"RINGBACK_{name.upper()}: ")


@pytest.mark.parametrize("infinite", ["inf", "nan", "1e300"])
@pytest.mark.parametrize("name", ["poll_first_seconds", "task_timeout_seconds", "retry_schedule"])
def test_a_time_must_be_finite(name: str, infinite: str) -> None:
    (fault,) = faults(**{name: infinite})
    assert fault.startswith(f"RINGBACK_{name.upper()}: ")


def test_no_fault_repeats_a_secret() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(SECRETS, env_file=None)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    assert all(name in shown for name in SECRETS)
    assert not [word for word in ("tooshort", "alsoshort", "hunter2") if word in shown]


def test_secrets_are_not_shown() -> None:
    settings = load(
        secret_key="s3cret-Vq8Zx3Km7TyW2rLc", api_key="s3cret-Hd5NbQ9jXv4GtRk6", piapi_api_key="s3cret-piapi"
    )
    assert "s3cret" not in f"{settings} {settings!r}"
    assert settings.api_key == SecretStr("s3cret-Hd5NbQ9jXv4GtRk6")


def test_the_settings_are_frozen() -> None:
    settings: Any = load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.poll_first_seconds = 1


def test_the_env_file_is_read_and_the_environment_takes_precedence(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        '# a comment\nRINGBACK_POLL_FIRST_SECONDS=3\nexport RINGBACK_ROOT_PATH="/ringback/"\nANOTHER_PROGRAM=1\n'
    )
    settings = load_settings({"RINGBACK_POLL_FIRST_SECONDS": "7", "PATH": "/bin"}, env_file=file)
    assert (settings.poll_first_seconds, settings.root_path) == (7, "/ringback")
    assert load_settings({}, env_file=file).poll_first_seconds == 3
    assert load_settings({}, env_file=tmp_path / "missing.env") == load()


def test_a_fault_in_the_env_file_is_reported_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("RINGBACK_PROVIDER_RAET=1/s\n")
    with pytest.raises(SettingsError, match="RINGBACK_PROVIDER_RAET: unknown setting; correct the name or remove it"):
        load_settings({}, env_file=file)


def test_an_empty_setting_counts_as_not_set() -> None:
    assert load(public_url="", retention_days="", secret_key="") == load()


def test_the_service_accepts_the_settings_of_the_client_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(url="http://127.0.0.1:1") == load()
    monkeypatch.setenv("RINGBACK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RINGBACK_API_KEY", "k")
    assert client_settings() == ("http://127.0.0.1:1", "k")


def test_rates_schedules_and_targets_are_parsed() -> None:
    settings = load(
        provider_rate="90/m", retry_schedule=" 0, 1.5 ,60", allowed_targets="10.0.0.0/8, Hooks.Internal,192.0.2.7"
    )
    assert settings.provider_calls_per_second == 1.5
    assert settings.retry_delays == (0, 1.5, 60)
    assert [str(network) for network in settings.allowed_networks] == ["10.0.0.0/8"]
    assert settings.allowed_hosts == {"hooks.internal", "192.0.2.7"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("sqlite+aiosqlite:///x.db", "sqlite:///x.db"),
        ("postgresql+asyncpg://u@h/d+e:f", "postgresql://u@h/d+e:f"),
        ("postgresql://u+v:w@h/d", "postgresql://u+v:w@h/d"),
        ("postgres://h/d", "postgres://h/d"),
    ],
)
def test_the_driver_in_a_database_s_url_means_nothing(given: str, read: str) -> None:
    assert load(database_url=given, secret_key="Wz5kQx8VtM3rYc7LpH2d").database_url == read


def test_origins_are_written_as_browsers_write_them() -> None:
    given = (
        "https://App.Example.com/, http://localhost:5173 ,https://a.example:443,http://[::1]:80,https://müller.example"
    )
    assert load(cors_origins=given).allowed_origins == (
        "https://app.example.com",
        "http://localhost:5173",
        "https://a.example",
        "http://[::1]",
        "https://xn--mller-kva.example",
    )
    assert load(cors_origins="capacitor://localhost").allowed_origins == ("capacitor://localhost",)
    assert load(cors_origins="https://a.example,*").allowed_origins == ("*",)
    assert load().allowed_origins == ()


@pytest.mark.parametrize(("rate", "calls"), [("10/s", 10), ("0.5/s", 0.5), ("600/m", 10), ("3600/h", 1)])
def test_a_rate_is_a_number_and_a_period(rate: str, calls: float) -> None:
    assert load(provider_rate=rate).provider_calls_per_second == calls


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "https://upload.theapi.app"),
        ({"piapi_base_url": "https://api.piapi.ai/"}, "https://upload.theapi.app"),
        ({"piapi_base_url": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000"),
        ({"piapi_upload_url": "https://files.example.com/"}, "https://files.example.com"),
        ({"piapi_upload_url": "https://files.example.com/api/ephemeral_resource"}, "https://files.example.com"),
        (
            {"piapi_base_url": "http://127.0.0.1:9000", "piapi_upload_url": "http://127.0.0.1:9001"},
            "http://127.0.0.1:9001",
        ),
    ],
)
def test_files_are_uploaded_to_piapi_s_own_host_unless_another_is_set(given: dict[str, str], url: str) -> None:
    environment = {f"RINGBACK_{name.upper()}": value for name, value in given.items()}
    assert load_settings(environment, env_file=None).upload_url == url


def test_urls_lose_their_trailing_slash() -> None:
    settings = load(public_url="https://ringback.example.com/", piapi_base_url="http://127.0.0.1:9/")
    assert (settings.public_url, settings.piapi_base_url) == ("https://ringback.example.com", "http://127.0.0.1:9")


def logged(log_format: str, log_level: str) -> list[str]:
    """Log one record of each level in a process of its own; return the lines on its standard error.

    The logger is imported before the settings are applied, as in the service.
    """
    script = (
        "from receiver.workers.supervisor import log\n"
        "from receiver.telemetry.log import configure_logging\n"
        f"configure_logging({log_format!r}, {log_level!r})\n"
        "log.debug('detail')\n"
        "log.info('state')\n"
        "log.warning('failure')\n"
        "log.error('fault')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["detail", "state", "failure", "fault"]),
        ("info", ["state", "failure", "fault"]),
        ("error", ["fault"]),
    ],
)
def test_records_below_the_log_level_are_not_written(level: str, events: list[str]) -> None:
    records = [json.loads(line) for line in logged("json", level)]
    assert [record["event"] for record in records] == events
    assert {record["logger"] for record in records} == {"workers.supervisor"}


def test_the_log_level_is_info_unless_it_is_set() -> None:
    assert (load().log_level, load(log_level="debug").log_level) == ("info", "debug")


@pytest.mark.parametrize("wrong", ["verbose", "DEBUG", "10"])
def test_a_wrong_log_level_stops_the_start(wrong: str) -> None:
    (fault,) = faults(log_level=wrong)
    assert fault == "RINGBACK_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'"


def test_postgresql_requires_a_master_key() -> None:
    named = {"RINGBACK_DATABASE_URL": "postgresql://user@host/name"}
    with pytest.raises(SettingsError, match="RINGBACK_SECRET_KEY: is required on PostgreSQL"):
        load_settings(named, env_file=None)
    settings = load_settings({**named, "RINGBACK_SECRET_KEY": "Wz5kQx8VtM3rYc7LpH2d"}, env_file=None)
    assert not settings.is_sqlite


def test_no_group_of_settings_replaces_a_validator_of_another() -> None:
    validators = Settings.__pydantic_decorators__.field_validators
    names = Counter(name for group in Settings.__mro__ for name in vars(group) if name in validators)
    assert [name for name, times in names.items() if times > 1] == []
