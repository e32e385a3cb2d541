"""URLs with parameters, on a real server: those that work, and what is said where the server or its TLS refuses."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import text

from receiver.errors import DatabaseAway, SettingsError, StartError
from receiver.settings import load_settings
from receiver.storage.database import Database
from receiver.storage.postgresql.connecting import connected
from receiver.storage.postgresql.server import connect
from receiver.storage.schema import migrate
from tests.fakes.certificate import self_signed
from tests.fakes.ports import free_port
from tests.fakes.tls_front import tls_front

pytestmark = pytest.mark.postgresql_only("is about the URL of a PostgreSQL server")

NEON = "sslmode=require&channel_binding=require"


def over_tcp(url: str, port: int, query: str) -> str:
    """Return the URL of the same database behind a port of loopback."""
    return f"postgresql://postgres@127.0.0.1:{port}{urlsplit(url).path}?{query}"


def socket_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"


async def test_neon_s_parameters_work_over_tls(
    url: str, tmp_path: Path, logged: list[MutableMapping[str, Any]]
) -> None:
    async with tls_front(self_signed(tmp_path), socket_of(url)) as port:
        given = {"RINGBACK_DATABASE_URL": over_tcp(url, port, NEON), "RINGBACK_SECRET_KEY": "Wz5kQx8VtM3rYc7LpH2d"}
        settings = load_settings(given, env_file=None)
        await migrate(settings)
        async with await Database.open(settings) as database:
            await database.check()
    assert [record["event"] for record in logged].count("channel binding not used") == 1


async def test_a_url_s_parameters_reach_the_server(url: str) -> None:
    more = "&application_name=mine&options=-c%20work_mem%3D7MB&connect_timeout=10&keepalives=1"
    async with connected(url + more) as connection:
        for name, value in (("application_name", "mine"), ("work_mem", "7MB"), ("TimeZone", "UTC")):
            assert (await connection.execute(text(f"SHOW {name}"))).scalar() == value
    plain = await connect(url)
    assert await plain.fetchval("SHOW application_name") == "ringback"
    await plain.close()


async def refusal(url: str) -> str:
    with pytest.raises((StartError, SettingsError)) as caught:
        async with connected(url):
            pass
    assert "\n" not in caught.value.message
    return caught.value.message


async def test_an_unknown_parameter_is_named_with_what_to_do(url: str) -> None:
    message = await refusal(f"{url}&no_such_thing=1")
    assert 'unrecognized configuration parameter "no_such_thing"' in message
    assert "remove that parameter in RINGBACK_DATABASE_URL" in message
    assert "work_mem" in (message := await refusal(f"{url}&work_mem=soon"))
    assert "correct or remove that parameter" in message


async def test_a_certificate_that_cannot_be_verified_is_named_as_the_reason(url: str, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    async with tls_front(certificate, socket_of(url)) as port:
        message = await refusal(over_tcp(url, port, "sslmode=verify-full&sslrootcert=system"))
        assert "certificate cannot be verified" in message
        assert "sslrootcert=FILE" in message
        async with connected(over_tcp(url, port, f"sslmode=verify-full&sslrootcert={certificate}")):
            pass


async def test_a_certificate_of_another_authority_and_one_of_another_host_are_told_apart(
    url: str, tmp_path: Path
) -> None:
    (tmp_path / "another").mkdir()
    certificate, another = self_signed(tmp_path, "elsewhere"), self_signed(tmp_path / "another")
    async with tls_front(certificate, socket_of(url)) as port:
        message = await refusal(over_tcp(url, port, f"sslmode=verify-full&sslrootcert={another}"))
        assert "certificate cannot be verified" in message
        assert "name the certificate of the authority that signed it" in message
        by_name = over_tcp(url, port, f"sslmode=verify-full&sslrootcert={certificate}")
        message = await refusal(by_name.replace("127.0.0.1", "localhost"))
        assert "mismatch" in message.lower()
        assert "or use sslmode=verify-ca" in message


async def test_files_that_hold_no_certificate_or_another_key_are_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "another").mkdir()
    certificate, another = self_signed(tmp_path), self_signed(tmp_path / "another")
    key = certificate.read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "empty.pem").write_bytes(b"")
    for query, words in (
        (f"sslrootcert={tmp_path}/none.pem", "a file that does not exist: sslrootcert="),
        (f"sslrootcert={tmp_path}", "a file that cannot be read (Is a directory): sslrootcert="),
        (f"sslrootcert={tmp_path}/empty.pem", "a file that has no certificate in the form PEM: sslrootcert="),
        (f"sslcert={another}&sslkey={tmp_path}/key.pem", "(the key is another certificate's): sslcert="),
        (f"sslcert={certificate}&sslkey={tmp_path}/empty.pem", "(no such pair in the form PEM, or sslpassword)"),
    ):
        message = await refusal(f"{url}&sslmode=require&{query}")
        assert message.startswith("RINGBACK_DATABASE_URL: names a ")
        assert words in message


async def test_what_may_pass_by_itself_is_told_from_what_does_not(url: str, tmp_path: Path) -> None:
    for wrong in (url.replace("postgres@", "no_such_role@"), url.replace("?", "_gone?")):
        with pytest.raises(StartError) as caught:
            async with connected(wrong):
                pass
        assert not isinstance(caught.value, DatabaseAway)
    for away, words in (
        (f"127.0.0.1:{free_port()}/d", "start the server, or correct the host and port"),
        (f"/d?host={tmp_path}", "start the server, or correct the host and port"),
        ("nowhere.invalid/d", "the host nowhere.invalid is not known: .*; correct the host"),
    ):
        with pytest.raises(DatabaseAway, match=words):
            async with connected(f"postgresql://u@{away}"):
                pass


async def test_a_server_without_tls_is_named_as_the_reason(url: str) -> None:
    async with tls_front(None, socket_of(url)) as port:
        assert "the server has no TLS" in await refusal(over_tcp(url, port, NEON))


async def test_a_wrong_url_is_a_wrong_setting(url: str) -> None:
    assert (await refusal(f"{url}&sslmode=on")).startswith("RINGBACK_DATABASE_URL: has a sslmode that is none of")
