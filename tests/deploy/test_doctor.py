"""What `ringback doctor` finds through a real nginx that is set as it must not be, one fault at each prefix."""

from collections.abc import AsyncIterator, Sequence
from getpass import getuser
from pathlib import Path

import pytest
import pytest_asyncio

from receiver.cli.doctor.public_url import probe, public_client, resolves_and_connects
from receiver.cli.doctor.result import DoctorResult
from receiver.domain.keyring import KeyRing
from receiver.serving.master_keys import master_keys
from receiver.settings import Settings
from tests.deploy.proxies import HOST, Nginx, Place, new_place, served
from tests.fakes.certificate import self_signed
from tests.fakes.world import World, in_processes

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.sqlite_only("a probe touches no database"),
]

PASS = (
    "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_pass $service/;"
)
LOCATIONS = f"""
location /right/ {{ {PASS} }}
location /moved/ {{ return 301 https://$host:$server_port/right/hooks/probe/$probe; }}
location /kept/ {{ return 308 https://$host:$server_port/elsewhere; }}
location /dropped/ {{ proxy_set_header X-Webhook-Secret ""; proxy_set_header Traceparent ""; {PASS} }}
location /both/ {{ proxy_set_header X-Webhook-Secret ""; proxy_set_header Authorization ""; {PASS} }}
location /changed/ {{ proxy_set_body "x$request_body"; {PASS} }}
location /small/ {{ client_max_body_size 64k; {PASS} }}
location /bare/ {{ proxy_pass $service/; }}
location /page/ {{ default_type text/html; return 200 "sign in"; }}
location /gone/ {{ proxy_pass http://127.0.0.1:9/; }}
"""


def configured(place: Place) -> Path:
    """Write a file of nginx with all of the prefixes; return its path."""
    folder, service = place.folder, f"http://127.0.0.1:{place.upstreams[0]}"
    temporary = "".join(
        f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"user {getuser()}; pid {folder}/nginx.pid; events {{}} http {{ access_log off; {temporary}"
        "client_max_body_size 2m;"
        "map $request_uri $probe { ~/([^/]+)$ $1; }"
        f"server {{ listen 127.0.0.1:{place.https} ssl; server_name {HOST};"
        f"ssl_certificate {place.certificate}; ssl_certificate_key {place.certificate};"
        f"{LOCATIONS.replace('$service', service)} }} }}"
    )
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served_at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[World, str, Path]]:
    """A service that does not trust the proxy before it; yields it, the proxy's URL and its certificate."""
    certificate = self_signed(tmp_path_factory.mktemp("certificate"), HOST, days=60)
    async with in_processes(tmp_path_factory.mktemp("world"), trusted_proxies="192.0.2.1") as world:
        place = new_place(tmp_path_factory.mktemp("nginx"), certificate, world.port)
        async with served(Nginx(), configured(place), place) as url:
            yield world, url, certificate


async def examined(world: World, url: str) -> list[DoctorResult]:
    settings: Settings = world.settings.model_copy(update={"public_url": url})
    async with public_client(settings) as client:
        return await probe(settings, KeyRing(master_keys(world.settings)), client)


UNTRUSTED = ("client address", "look", "set RINGBACK_TRUSTED_PROXIES to 127.0.0.1")
RIGHT = [("probe", "ok", ""), ("headers", "ok", ""), ("body", "ok", ""), UNTRUSTED, ("large body", "ok", "")]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("right", RIGHT),
        ("moved", [("probe", "bad", "set RINGBACK_PUBLIC_URL to https://localhost:{port}/right, or end the redirect")]),
        ("kept", [("probe", "bad", "end the redirect for /hooks/")]),
        (
            "dropped",
            [
                RIGHT[0],
                ("headers", "bad", "let it pass X-Webhook-Secret on as it is"),
                ("headers", "look", "let it pass Traceparent on as it is"),
                *RIGHT[2:],
            ],
        ),
        ("both", [("probe", "bad", "let the proxy pass X-Webhook-Secret on")]),
        (
            "changed",
            [*RIGHT[:2], ("body", "bad", "let nothing before the service read"), UNTRUSTED, ("large body", "bad", "")],
        ),
        ("small", [*RIGHT[:4], ("large body", "bad", "let the proxy pass bodies of 1.0 MiB")]),
        ("bare", [*RIGHT[:3], ("client address", "look", "let the proxy send X-Forwarded-For"), RIGHT[4]]),
        ("page", [("probe", "bad", "without a sign-in")]),
        ("gone", [("probe", "bad", "start the service")]),
        ("unknown", [("probe", "bad", "let the proxy pass POST /hooks/")]),
    ],
)
async def test_each_fault_of_a_proxy_is_told_with_what_mends_it(
    prefix: str,
    expected: Sequence[tuple[str, str, str]],
    served_at: tuple[World, str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, url, certificate = served_at
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    found = await examined(world, f"{url}/{prefix}")
    assert [(each.check, each.outcome) for each in found] == [(check, outcome) for check, outcome, _ in expected], found
    for each, (_, _, mend) in zip(found, expected, strict=True):
        assert mend.replace("{port}", url.rpartition(":")[2]) in each.mend, each


async def test_a_certificate_of_no_authority_is_bad_before_anything_is_sent(served_at: tuple[World, str, Path]) -> None:
    world, url, _ = served_at
    (found,) = await resolves_and_connects(world.settings.model_copy(update={"public_url": f"{url}/right"}))
    assert (found.outcome, "its certificate is not accepted" in found.found) == ("bad", True)
