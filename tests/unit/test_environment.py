"""Where settings come from: blanks around values, files for secrets, and `.env` in the encodings that editors write."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from receiver.errors import SettingsError
from receiver.serving.start import prepared
from receiver.settings import Settings, client_settings, load_settings, secret_settings
from tests.fakes.command import CLEAN, run_command
from tests.unit.test_settings import faults, load

KEY = "Tq8vXw3ZrM6kYc9LpH4d"
BLANKS = ["{}\n", "{}\r\n", " {} ", "\t{}\n\n", "\u00a0{}", "\ufeff{}", "{}\u200b"]
SECRETS = [
    "RINGBACK_DATABASE_URL",
    "RINGBACK_SECRET_KEY",
    "RINGBACK_API_KEY",
    "RINGBACK_PIAPI_API_KEY",
    "RINGBACK_PIAPI_WEBHOOK_SECRET",
    "RINGBACK_ALERT_URLS",
    "RINGBACK_METRICS_TOKEN",
    "RINGBACK_SENTRY_DSN",
]


def secret_of(settings: Settings, name: str) -> str:
    value = getattr(settings, name.removeprefix("RINGBACK_").lower())
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


@pytest.mark.parametrize("blanks", BLANKS)
def test_blanks_around_a_value_are_not_part_of_it(blanks: str) -> None:
    settings = load(
        public_url=blanks.format("http://h"),
        database_url=blanks.format("sqlite:///x.db"),
        piapi_webhook_secret=blanks.format("123456"),
        piapi_api_key=blanks.format(KEY),
        retention_days=blanks.format("7"),
        log_level=blanks.format("debug"),
        allow_private_targets=blanks.format("true"),
        provider_rate=blanks.format("10/s"),
        retry_schedule=blanks.format("0,5"),
    )
    assert (settings.public_url, settings.database_url) == ("http://h", "sqlite:///x.db")
    assert secret_of(settings, "RINGBACK_PIAPI_WEBHOOK_SECRET") == "123456"
    assert secret_of(settings, "RINGBACK_PIAPI_API_KEY") == KEY
    assert (settings.retention_days, settings.log_level, settings.allow_private_targets) == (7, "debug", True)
    assert (settings.provider_rate, settings.retry_delays) == ("10/s", (0, 5))


INJECTED = {
    "RINGBACK_PORT": "tcp://10.96.0.7:8080",
    "RINGBACK_SERVICE_HOST": "10.96.0.7",
    "RINGBACK_SERVICE_PORT": "8080",
    "RINGBACK_SERVICE_PORT_HTTP": "8080",
    "RINGBACK_PORT_8080_TCP": "tcp://[fd00::7]:8080",
    "RINGBACK_PORT_8080_TCP_PROTO": "tcp",
    "RINGBACK_PORT_8080_TCP_PORT": "8080",
    "RINGBACK_PORT_8080_TCP_ADDR": "fd00::7",
    "RINGBACK_API_SERVICE_HOST": "10.96.0.8",
    "RINGBACK_POSTGRES_PORT_5432_TCP": "tcp://10.96.0.9:5432",
    "RINGBACK_SERVICE_PORT_53_UDP_PROTO": "udp",
}
"""What Kubernetes sets for Services called `ringback`, `ringback-api`, `ringback-postgres` and `ringback-service`."""


def test_what_kubernetes_sets_for_a_service_is_no_setting_and_a_typing_error_is_still_found() -> None:
    assert load_settings(INJECTED, env_file=None) == load()
    unknown = "unknown setting; correct the name or remove it"
    for name, value in (("service_host", "example.com"), ("portt", "8080"), ("api_port_8080_tcp_proto", "http")):
        assert faults(**{name: value}) == [f"RINGBACK_{name.upper()}: {unknown}"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("10.0.0.0/33", "'10.0.0.0/33' is no address, no network"),
        ("127.0.0.1, foo", "'foo' is no address"),
        ("10.0.0.1/8", "'10.0.0.1/8' is an address within a network; write 10.0.0.0/8"),
        ("*, 10.0.0.1", "has *, which trusts everybody, beside others"),
    ],
)
def test_a_proxy_that_no_address_would_ever_match_is_a_fault(value: str, words: str) -> None:
    (fault,) = faults(trusted_proxies=value)
    assert fault.startswith(f"RINGBACK_TRUSTED_PROXIES: {words}")


@pytest.mark.parametrize("value", ["*", "unix", "10.0.0.0/8, ::1,fd00::/8 ,192.168.1.1"])
def test_proxies_are_trusted_as_the_server_reads_them(value: str) -> None:
    trusted = ProxyHeadersMiddleware(None, load(trusted_proxies=value).trusted_proxies).trusted_hosts  # type: ignore[arg-type]
    for host in ("unix",) if value == "unix" else ("10.9.8.7", "::1", "fd00::9", "192.168.1.1"):
        assert host in trusted


def test_a_value_of_blanks_counts_as_not_set() -> None:
    assert load(piapi_api_key=" \n", public_url="\t") == load()


def test_every_setting_with_a_secret_may_be_in_a_file() -> None:
    assert secret_settings() == SECRETS
    of_that_type = {name for name, info in Settings.model_fields.items() if "SecretStr" in str(info.annotation)}
    of_that_type -= {"provider_accounts"}  # made of settings that have a name for each provider
    assert {name.lower().removeprefix("ringback_") for name in SECRETS} == of_that_type | {"database_url"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_read_from_its_file(tmp_path: Path, name: str, encoding: str) -> None:
    secret = "sqlite:///elsewhere.db" if name == "RINGBACK_DATABASE_URL" else KEY
    file = tmp_path / "secret"
    file.write_bytes(f"{secret}\r\n".encode(encoding))
    settings = load_settings({f"{name}_FILE": f" {file} "}, env_file=None)
    assert secret_of(settings, name) == secret
    env_file = tmp_path / ".env"
    env_file.write_text(f"{name}_FILE={file}\n")
    assert load_settings({}, env_file=env_file) == settings


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xff\xfe\x00", "not a text in UTF-8"),
        (b"s3cret-\xe9-s3cret-s3cret", "not a text in UTF-8"),
        ("a-key-of-more-than-16".encode("utf-16-le"), "not a text in UTF-8"),
        (b"s3cret" * 20_000, "larger than"),
    ],
    ids=["missing", "empty", "blank", "mark alone", "half", "latin-1", "UTF-16 without a mark", "large"],
)
def test_the_fault_of_a_file_names_the_setting_and_the_path(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    named = {"RINGBACK_DATABASE_URL": "postgresql://u@h/d"} if name == "RINGBACK_SECRET_KEY" else {}
    with pytest.raises(SettingsError) as caught:
        load_settings({**named, f"{name}_FILE": str(file), "RINGBACK_RETENTION_DAYS": "-1"}, env_file=None)
    first, second = sorted(caught.value.message.splitlines(), key=lambda line: "RETENTION" in line)
    assert first.startswith(f"{name}_FILE: {file}: {words}")
    assert second.startswith("RINGBACK_RETENTION_DAYS: ")
    assert "s3cret" not in first


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    assert faults(api_key_file=str(tmp_path)) == [f"RINGBACK_API_KEY_FILE: {tmp_path}: Is a directory"]


def test_a_pipe_without_a_writer_does_not_hold_up_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.environment._PIPE_SECONDS", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = "a pipe or device from which nothing came; name a file"
    assert faults(api_key_file=str(pipe)) == [f"RINGBACK_API_KEY_FILE: {pipe}: {words}"]
    reading, writing = os.pipe()
    os.write(writing, f"{KEY}\n".encode())
    os.close(writing)
    assert secret_of(load(api_key_file=f"/dev/fd/{reading}"), "RINGBACK_API_KEY") == KEY
    os.close(reading)


def test_what_is_wrong_in_a_file_is_reported_under_the_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("two\nlines-of-more-than-16")
    (fault,) = faults(piapi_webhook_secret_file=str(file))
    assert fault.startswith(f"RINGBACK_PIAPI_WEBHOOK_SECRET_FILE: {file}: has a line break")


def test_a_secret_and_its_file_together_are_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(KEY)
    assert faults(api_key=KEY, api_key_file=str(file)) == [
        "RINGBACK_API_KEY_FILE: RINGBACK_API_KEY is set too; remove one of them"
    ]


def test_only_secrets_have_files() -> None:
    assert faults(public_url_file="/x") == ["RINGBACK_PUBLIC_URL_FILE: unknown setting; correct the name or remove it"]


@pytest.mark.parametrize("name", ["api_key", "piapi_api_key"])
@pytest.mark.parametrize("value", ["a-key-with a-blank", "a-key-with\na-break", "a-key-with-ü-in-it", "a-key\x07-bell"])
def test_a_key_that_no_header_can_carry_is_a_fault(name: str, value: str) -> None:
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"RINGBACK_{name.upper()}: has a ")
    assert value not in fault


@pytest.mark.parametrize("name", ["secret_key", "piapi_webhook_secret", "database_url", "public_url", "piapi_base_url"])
def test_a_control_character_is_a_fault(name: str) -> None:
    start = "postgresql://u:p" if name == "database_url" else "http://name" if name.endswith("url") else "k" * 16
    (fault, *_) = [each for each in faults(**{name: f"{start}\nx@h/d"}) if name.upper() in each]
    assert "line break" in fault


@pytest.mark.parametrize("blank", [" ", "\u200b", "\u00a0"])
def test_a_url_has_no_blanks_in_it(blank: str) -> None:
    assert faults(public_url=f"http://h{blank}/x") == ["RINGBACK_PUBLIC_URL: must be one URL, without blanks in it"]


@pytest.mark.parametrize("name", ["public_url", "piapi_base_url", "piapi_upload_url"])
@pytest.mark.parametrize("end", ["?key=1", "/?", "/#top", ":8o80", ":99999"])
def test_paths_can_be_added_to_a_url(name: str, end: str) -> None:
    (fault,) = faults(**{name: f"http://h{end}"})
    assert fault.startswith(f"RINGBACK_{name.upper()}: ")


def test_a_webhook_secret_may_have_any_letters() -> None:
    assert secret_of(load(piapi_webhook_secret="schlüssel 猫"), "RINGBACK_PIAPI_WEBHOOK_SECRET") == "schlüssel 猫"


def test_a_value_that_is_not_utf_8_is_a_fault() -> None:
    assert faults(piapi_webhook_secret="\udce9", root_path="/\udce9") == [
        "RINGBACK_PIAPI_WEBHOOK_SECRET: must be a text in UTF-8",
        "RINGBACK_ROOT_PATH: must be a text in UTF-8",
    ]


def test_the_password_of_the_database_is_not_shown() -> None:
    settings = load(database_url="postgresql://me:hunter2@host/db", secret_key=KEY)
    assert "hunter2" not in f"{settings} {settings!r}"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_the_env_file_is_read_in_the_encodings_that_editors_write(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes("RINGBACK_RETENTION_DAYS=7\r\nRINGBACK_PIAPI_WEBHOOK_SECRET='schlüssel '\r\n".encode(encoding))
    settings = load_settings({}, env_file=file)
    assert settings.retention_days == 7
    assert secret_of(settings, "RINGBACK_PIAPI_WEBHOOK_SECRET") == "schlüssel"


def test_a_setting_that_cannot_be_read_is_a_fault_and_no_other_line_is(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("another program's line\n\nRINGBACK_API_KEY='0123456789abcdef\nRINGBACK_RETENTION_DAYS=7\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({}, env_file=file)
    assert caught.value.message == f"{file}: line 3 cannot be read; look for a missing quote"
    file.write_text("another program's line\nRINGBACK_RETENTION_DAYS=7\n")
    assert load_settings({}, env_file=file).retention_days == 7


@pytest.mark.parametrize("content", ["RINGBACK_API_KEY=ü".encode("latin-1"), "RINGBACK_X=1".encode("utf-16-le")])
def test_an_env_file_that_is_not_text_is_a_fault_that_names_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match="not a text in UTF-8; save it in that encoding") as caught:
        load_settings({}, env_file=file)
    assert caught.value.message.startswith(f"{file}: ")


def test_the_client_commands_read_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RINGBACK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("k3y\n")
    (tmp_path / ".env").write_bytes("RINGBACK_URL= http://127.0.0.1:1 \nRINGBACK_API_KEY_FILE=key\n".encode("utf-16"))
    assert client_settings() == ("http://127.0.0.1:1", "k3y")
    monkeypatch.setenv("RINGBACK_API_KEY", "other")
    with pytest.raises(SettingsError, match="RINGBACK_API_KEY_FILE: RINGBACK_API_KEY is set too"):
        client_settings()


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("migrate",), ("task", "list")])
async def test_a_command_says_what_is_wrong_with_the_env_file_and_nothing_else(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / ".env").write_bytes(b"RINGBACK_API_KEY=\xfc\n")
    status, out, err = await run_command(*command, folder=tmp_path, environment=CLEAN)
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "ringback: the settings are wrong:",
        ".env: not a text in UTF-8; save it in that encoding",
    ]


@pytest.mark.parametrize(("secret", "records"), [("123456", 1), ("ü" * 15, 1), ("a" * 16, 0), (None, 0)])
def test_a_short_webhook_secret_is_warned_of_once_at_the_start_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], secret: str | None, records: int
) -> None:
    given = {} if secret is None else {"piapi_webhook_secret": secret}
    settings = load(database_url=f"sqlite:///{tmp_path}/ringback.db", **given)
    with prepared(settings, workers=1):
        pass
    printed = "".join(capsys.readouterr())
    assert printed.count("short webhook secret") == records
    assert printed.count("RINGBACK_PIAPI_WEBHOOK_SECRET") == records
    assert secret is None or secret not in printed
