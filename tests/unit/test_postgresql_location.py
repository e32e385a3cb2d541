"""URLs of PostgreSQL servers as their providers hand them out: what the driver is told, and what is refused."""

import ssl
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from receiver.errors import SettingsError
from receiver.storage.postgresql.location import read_location
from tests.fakes.certificate import self_signed

PASTED = {
    "Neon": "postgresql://u:p@ep-cool-a1.us-east-2.aws.neon.tech/db?sslmode=require&channel_binding=require",
    "Supabase": "postgres://postgres.ref:p@aws-0-eu-central-1.pooler.supabase.com:5432/postgres?sslmode=require",
    "Heroku": "postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/db",
    "Azure": "postgresql://u@server:p@server.postgres.database.azure.com:5432/postgres?sslmode=require",
    "Cloud SQL": "postgresql://u:p@/db?host=/cloudsql/project:region:instance",
    "Prisma": "postgresql://u:p@h:5432/db?schema=public&connection_limit=5&pool_timeout=10&pgbouncer=false",
    "node": "postgres://u:p@h/db?ssl=true",
    "libpq": "postgresql://u:p@h/db?keepalives=1&keepalives_idle=30&tcp_user_timeout=1000&gssencmode=prefer&sslsni=1"
    "&client_encoding=utf8&fallback_application_name=x&load_balance_hosts=disable&sslcompression=0&sslcertmode=allow",
    "two hosts": "postgresql://u:p@one:5432,two:5433/db?target_session_attrs=read-write",
}
DRIVERS = {"host", "sslmode", "sslrootcert"}


@pytest.mark.parametrize("url", PASTED.values(), ids=PASTED)
def test_a_pasted_url_becomes_one_that_the_driver_knows_all_of(url: str) -> None:
    location = read_location(url)
    told = urlsplit(location.dsn)
    assert {name for name, _ in parse_qsl(told.query)} <= DRIVERS
    assert (told.scheme, told.path) == ("postgresql", urlsplit(url).path)
    assert location.settings == {}


def test_what_a_url_says_of_tls_reaches_the_driver() -> None:
    assert read_location(PASTED["Neon"]).dsn.endswith("/db?sslmode=require")
    assert read_location(PASTED["node"]).dsn.endswith("/db?sslmode=require")
    assert read_location("postgresql://h/db?sslmode=no-verify").dsn.endswith("?sslmode=require")
    assert read_location("postgresql://h/db?ssl=false").dsn.endswith("?sslmode=disable")


def test_a_password_keeps_its_characters() -> None:
    assert read_location("postgresql://u:p%2F%40%23ä@h/db").dsn == "postgresql://u:p%2F%40%23ä@h/db"
    assert read_location("postgresql://u:p@ss@h/db").dsn == "postgresql://u:p%40ss@h/db"


def test_settings_of_the_server_are_told_the_server() -> None:
    url = "postgresql://h/db?application_name=mine&options=-c%20search_path%3Dx&statement_timeout=5000&sslmode="
    assert read_location(url).settings == {
        "application_name": "mine",
        "options": "-c search_path=x",
        "statement_timeout": "5000",
    }
    assert read_location("postgresql://h/db?schema=tracking").settings == {"search_path": "tracking"}


@pytest.mark.parametrize(("given", "seconds"), [("10", 10.0), ("0", None), ("3600", 60.0)])
def test_the_time_to_connect_may_be_in_the_url(given: str, seconds: float | None) -> None:
    assert read_location(f"postgresql://h/db?connect_timeout={given}").connect_seconds == seconds


@pytest.mark.parametrize(
    ("query", "is_unbound"),
    [
        ("", False),
        ("channel_binding=disable", False),
        ("channel_binding=prefer&sslmode=require", False),
        ("channel_binding=require&sslmode=require", True),
        ("channel_binding=require&sslmode=verify-full&sslrootcert=system", False),
    ],
)
def test_channel_binding_is_allowed_for_and_its_absence_known(query: str, is_unbound: bool) -> None:
    assert read_location(f"postgresql://h/db?{query}").is_unbound is is_unbound


@pytest.mark.parametrize(
    ("query", "checks_host"),
    [("sslmode=verify-full", True), ("sslmode=verify-ca", False), ("sslmode=require&sslrootcert=system", True)],
)
def test_without_a_root_certificate_the_system_s_verify(
    query: str, checks_host: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    read_location.cache_clear()
    tls = read_location(f"postgresql://h/db?{query}").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, checks_host)
    read_location.cache_clear()


def test_a_root_certificate_that_is_named_is_the_driver_s(tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    file.write_bytes(self_signed(tmp_path).read_bytes())
    location = read_location(f"postgresql://h/db?sslmode=verify-full&sslrootcert={file}")
    assert location.tls is None
    assert dict(parse_qsl(urlsplit(location.dsn).query))["sslrootcert"] == str(file)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:hunter2/x@h/db", "percent-encode special characters in the password"),
        ("postgresql://u:hunter2?x@h/db", "percent-encode special characters in the password"),
        ("postgresql://u:hunter2#x@h/db", "# as %23)"),
        ("postgresql://u:hunter2@h/db#x", "has a # in it"),
        ("postgresql://u:hunter2[x@h/db", "percent-encode special characters in the password"),
        ("postgresql://u:hunter2@h/db?sslmode=on", "sslmode that is none of disable, allow,"),
        ("postgresql://u:hunter2@h/db?channel_binding=yes", "channel_binding that is none of"),
        ("postgresql://u:hunter2@h/db?connect_timeout=soon", "connect_timeout that is not a number"),
        ("postgresql://u:hunter2@h/db?target_session_attrs=standby", "cannot be written to"),
        ("postgresql://u:hunter2@h/db?gssencmode=require", "use sslmode"),
        ("postgresql://u:hunter2@h/db?hostaddr=10.0.0.1", "has hostaddr, which cannot be obeyed here; remove it"),
        ("postgresql://u:hunter2@h/db?sslrootcert=/not/there.pem", "does not exist: sslrootcert=/not/there.pem"),
        ("postgresql://u:hunter2@ep-a1-pooler.us-east-2.aws.neon.tech/db", "the host without `-pooler`"),
        ("postgres://u:hunter2@aws-0-x.pooler.supabase.com:6543/postgres", "port 5432"),
        ("postgresql://u:hunter2@h:6432/db?pgbouncer=true", "pooler in transaction mode"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do_and_without_the_password(url: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_location(url)
    assert caught.value.message.startswith("RINGBACK_DATABASE_URL: ")
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message
