"""`ringback doctor` beside a real service, and its checks against servers on loopback."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.cli.doctor import tls
from receiver.cli.doctor.provider_checks import provider_checks
from receiver.cli.doctor.proxy_timeouts import long_poll, stream
from receiver.cli.doctor.public_url import new_probe, public_client, resolves_and_connects
from receiver.cli.doctor.webhook_checks import webhook_checks
from receiver.clock import wall_now
from receiver.domain.keyring import KeyRing
from receiver.inbound.probe import MOST_PROBE_BYTES
from receiver.serving.master_keys import master_keys
from receiver.settings import load_settings
from receiver.storage.reading import reading
from tests.fakes.certificate import self_signed
from tests.fakes.command import CLEAN, run_command
from tests.fakes.inbound import SILENT
from tests.fakes.raw_server import RawServer
from tests.fakes.stepped_clock import SteppedClock
from tests.fakes.world import API_KEY, PROVIDER_KEY, World, in_process, in_processes

Found = dict[str, list[dict[str, Any]]]
"""The results of an examination, by the name of the check."""


async def doctor(world: World, status: int, **more: str) -> Found:
    environment = {**CLEAN, **world.environment, **more}
    returned, out, err = await run_command("doctor", "--json", folder=world.folder, environment=environment)
    assert returned == status, (out, err)
    found: Found = {}
    for each in json.loads(out)["checks"]:
        found.setdefault(each["check"], []).append(each)
    secrets = {API_KEY, PROVIDER_KEY, *master_keys(world.settings)}
    assert not [secret for secret in secrets if secret in out + err]
    return found


def outcomes(found: Found, check: str) -> list[str]:
    return [each["outcome"] for each in found[check]]


UNSAFE = {"fsync", "full_page_writes", "autovacuum"}
"""Off at the server of the tests, which loses data in a crash of its machine."""


@pytest.mark.long
async def test_an_installation_is_examined_while_it_serves_and_after_it_died(tmp_path: Path, backend: str) -> None:
    async with in_processes(tmp_path) as world:
        await world.webhook()
        await world.created(SILENT)
        clock = SteppedClock(tmp_path / "clock")
        found = await doctor(world, 0 if backend == "sqlite" else 1)
        assert {check for check in found if "bad" in outcomes(found, check)} <= UNSAFE
        for check in ("probe", "headers", "body", "large body", "master keys", "piapi", "webhooks", "schema"):
            assert outcomes(found, check) == ["ok"], found[check]
        assert outcomes(found, "clock")[0] == "ok"
        clock.set(-200)
        behind = await doctor(world, 1, **clock.environment)
        assert "bad" in outcomes(behind, "clock")
        assert "set this machine's clock" in next(each["mend"] for each in behind["clock"] if each["mend"])
        await world.kill()
        clock.set(7300)
        late = await doctor(world, 1, **clock.environment)
        assert outcomes(late, "due tasks") == ["bad"]
        assert "of which 1 are late; the oldest by 2 h" in late["due tasks"][0]["found"]
        assert "is not reached from here" in late["public URL"][0]["found"]
        assert outcomes(late, "probe") == ["skipped"]


async def test_a_database_that_cannot_be_opened_ends_with_3(tmp_path: Path, backend: str) -> None:
    async with in_processes(tmp_path, start=False) as world:
        urls = {"sqlite": "sqlite:///missing.db", "postgresql": "postgresql://absent:planted@127.0.0.1:9/none"}
        found = await doctor(world, 3, RINGBACK_DATABASE_URL=urls[backend])
        assert outcomes(found, "database") == ["bad"]
        assert outcomes(found, "backlog") == ["skipped"]
        assert "planted" not in repr(found)


@pytest.mark.sqlite_only("is about files")
async def test_a_file_that_others_can_read_is_bad(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False) as world:
        world.settings.sqlite_path.chmod(0o666)
        (found,) = (await doctor(world, 1))["file permissions"]
        assert (found["outcome"], found["mend"]) == ("bad", f"run: chmod 600 {world.settings.sqlite_path}")


@pytest.mark.no_database("asks a provider alone")
@pytest.mark.parametrize(
    ("head", "body", "seconds", "expected"),
    [
        (b"401 Unauthorized", b"{}", 0, [("piapi", "bad"), ("clock", "ok")]),
        (
            b"200 OK\r\nX-RateLimit-Remaining: 17",
            b'{"code":200,"data":{"credits":5}}',
            0,
            [("piapi", "ok"), ("clock", "ok")],
        ),
        (b"200 OK", b'{"code":200,"data":{"credits":0}}', 30, [("piapi", "look"), ("clock", "look")]),
        (b"500 Oops", b"{}", -3600, [("piapi", "bad"), ("clock", "bad")]),
    ],
)
async def test_a_provider_is_asked_once_for_its_account(
    head: bytes, body: bytes, seconds: int, expected: list[tuple[str, str]]
) -> None:
    date = format_datetime(wall_now().fromtimestamp(wall_now().timestamp() + seconds, wall_now().tzinfo), usegmt=True)
    answer = b"HTTP/1.1 %b\r\ndate: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    async with RawServer(answer % (head, date.encode(), len(body), body)) as server:
        settings = load_settings(
            {"RINGBACK_PIAPI_BASE_URL": server.url(""), "RINGBACK_PIAPI_API_KEY": PROVIDER_KEY}, env_file=None
        )
        found = await provider_checks(settings)
        assert [(each.check, each.outcome) for each in found] == expected
        assert ("calls left of its rate limit: 17" in found[0].found) == (b"17" in head)
        assert [line.split(b" ")[:2] for line in server.request_lines] == [[b"GET", b"/account/info"]]
        assert PROVIDER_KEY not in repr(found)


@asynccontextmanager
async def tls_server(certificate: Path) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


@pytest.mark.no_database("is about TLS")
@pytest.mark.parametrize(
    ("days", "is_trusted", "outcome", "words"),
    [
        (60.5, False, "bad", "its certificate is not accepted: self-signed certificate"),
        (-3.5, True, "bad", "its certificate is not accepted: certificate has expired"),
        (5.5, True, "look", "the certificate ends soon"),
        (60.5, True, "ok", "is reached; certificate good until"),
    ],
)
async def test_a_certificate_is_read_whether_it_is_accepted_or_not(
    days: float, is_trusted: bool, outcome: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path, days=days)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with tls_server(certificate) as port:
        settings = load_settings({"RINGBACK_PUBLIC_URL": f"https://127.0.0.1:{port}"}, env_file=None)
        (found,) = await resolves_and_connects(settings)
    assert (found.outcome, words in found.found) == (outcome, True), found
    assert f"({int(days // 1)} days)" in found.found


@pytest.mark.no_database("is about TLS")
async def test_what_does_not_speak_tls_is_told() -> None:
    def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await tls.handshake("127.0.0.1", port, "localhost", ssl.create_default_context())
    assert "TLS does not come about" in found.fault


async def test_a_webhook_is_connected_to_and_sent_nothing(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, days=-2)
    async with in_process(tmp_path) as world, RawServer(b"") as server, tls_server(certificate) as port:
        webhook = await world.webhook(endpoint_url=server.url("/with-a-secret?token=planted"))
        await world.webhook(endpoint_url=f"https://127.0.0.1:{port}/")
        async with reading(world.settings) as read:
            expired, summary = await webhook_checks(world.settings, read)
            assert (expired.outcome, "certificate is not accepted" in expired.found) == ("bad", True)
            assert summary.found == "1 of 2 active ones are reached"
            strict = world.settings.model_copy(update={"allow_private_targets": False})
            *_, forbidden, summary = await webhook_checks(strict, read)
        assert (forbidden.outcome, webhook["id"] in forbidden.found) == ("bad", True)
        assert "planted" not in repr(forbidden)
        assert summary.found == "0 of 2 active ones are reached"
        assert server.requests == [b""] * len(server.requests)


class Probed:
    """A world whose public URL is its own, and a client of it."""

    def __init__(self, world: World, client: httpx.AsyncClient) -> None:
        self.settings = world.settings
        self.keyring = KeyRing(master_keys(world.settings))
        self.client = client

    async def post(self, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> httpx.Response:
        sent = new_probe(self.settings, self.keyring, 512)
        return await self.client.post(sent.url, headers=sent.headers if headers is None else headers, content=body)


@pytest.fixture
async def probed(tmp_path: Path) -> AsyncIterator[Probed]:
    async with in_process(tmp_path) as world, public_client(world.settings) as client:
        yield Probed(world, client)


@pytest.mark.sqlite_only("a probe touches no database")
async def test_a_probe_is_answered_to_who_has_the_master_key_alone(probed: Probed) -> None:
    other = new_probe(probed.settings, KeyRing(["Zr7HyLd4PgJ9nBf3sXe6uKc5Vx8TqWm2"]), 16)
    for headers in ({}, other.headers, {"x-webhook-secret": "x" * 54}):
        answer = await probed.post(headers, b"x" * 100)
        assert (answer.status_code, answer.json()["data"]) == (401, None)
    sent = new_probe(probed.settings, probed.keyring, 512)
    elsewhere = new_probe(probed.settings, probed.keyring, 512)
    assert (await probed.client.post(elsewhere.url, headers=sent.headers)).status_code == 401
    assert (await probed.client.get(sent.url, headers=sent.headers)).status_code == 404
    answer = await probed.client.post(sent.url, headers={"authorization": sent.headers["authorization"]}, content=b"")
    assert answer.status_code == 200
    assert sent.headers["authorization"] not in answer.text
    assert (await probed.post(body=b"x" * (MOST_PROBE_BYTES + 1))).status_code == 413


@pytest.mark.sqlite_only("touches no database")
async def test_a_long_poll_and_a_stream_are_held_for_their_time(probed: Probed) -> None:
    held = await long_poll(probed.settings, probed.keyring, probed.client, 0.3)
    assert (held.outcome, held.check) == ("ok", "long poll")
    streamed = await stream(probed.settings, API_KEY, probed.client, 0.5)
    assert (streamed.outcome, "was held for 0.5 s" in streamed.found) == ("ok", True), streamed
    assert (await stream(probed.settings, None, probed.client)).outcome == "skipped"
    assert (await stream(probed.settings, "rb_wrong_Zq7vW3kXr9TmLp4c", probed.client, 5)).outcome == "look"
