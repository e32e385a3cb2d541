"""The service behind each reverse proxy, as a client with TLS meets it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from receiver.cli.doctor.public_url import probe
from receiver.domain.keyring import KeyRing
from receiver.serving.master_keys import master_keys
from tests.deploy.proxies import HOST, PROXIES, new_place, program, rendered, served, trusting
from tests.fakes.certificate import self_signed
from tests.fakes.inbound import PICTURE, SILENT, hook_secret, notice
from tests.fakes.raw_server import RawServer
from tests.fakes.reader import EVENT_STREAM, Reader
from tests.fakes.world import API_KEY, ProcessWorld, in_processes

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
READY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
LOST = 502
STRANGER = "203.0.113.7"
METRICS = ("/metrics", "/metrics/", "//metrics", "/%6detrics", "/ringback/metrics", "/ringback//metrics/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("certificate"), HOST)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProcessWorld]:
    """One service for the whole module, below a prefix too."""
    async with in_processes(tmp_path_factory.mktemp("world"), root_path="/ringback") as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROXIES)
async def client(
    request: pytest.FixtureRequest, world: ProcessWorld, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service through the proxy, once for each proxy."""
    proxy = PROXIES[request.param]
    place = new_place(tmp_path_factory.mktemp(proxy.name), certificate, world.port)
    async with served(proxy, rendered(proxy, place), place) as url, client_of(url, certificate) as client:
        yield client


def client_of(url: str, certificate: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url, verify=trusting(certificate), headers={"x-api-key": API_KEY}, timeout=40, trust_env=False
    )


async def test_a_create_a_long_poll_and_a_webhook_pass(client: httpx.AsyncClient, world: ProcessWorld) -> None:
    body = {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": "a cat", "sandbox": SILENT}}
    task_id = (await client.post("/api/v1/task", json=body)).json()["data"]["task_id"]
    query = {"wait_for_completion": "true", "timeout_seconds": "2"}
    waited = await client.get(f"/api/v1/task/{task_id}", params=query)
    assert (waited.status_code, waited.elapsed.total_seconds() >= 1.9) == (200, True)
    provider_id = (await world.task(task_id))["provider_task_id"]
    polling = asyncio.create_task(client.get(f"/api/v1/task/{task_id}", params={**query, "timeout_seconds": "30"}))
    answer = await client.post(
        f"/hooks/piapi/{task_id}",
        json=notice(provider_id, "completed", output=PICTURE),
        headers={"x-webhook-secret": hook_secret(world, task_id)},
    )
    assert answer.status_code == 200, answer.text
    assert (await polling).json()["data"]["status"] == "completed"


async def test_an_event_stream_arrives_at_once_and_as_it_is(client: httpx.AsyncClient, world: ProcessWorld) -> None:
    headers = {**EVENT_STREAM, "accept-encoding": "gzip, br"}
    async with client.stream("GET", "/api/v1/events", headers=headers) as answer:
        reader = Reader(answer)
        await reader.comment("from here on", seconds=5)  # sooner than the next comment, which would push it out
        task_id = await world.created(SILENT)
        await reader.until(lambda seen: seen and seen[-1].task_id == task_id, seconds=5)
        assert "content-encoding" not in answer.headers


async def test_large_bodies_are_answered_in_json(client: httpx.AsyncClient, certificate: Path, tmp_path: Path) -> None:
    nearly = await client.post("/api/v1/task", json={"input": {"prompt": "x" * (16 * MIB - 1000)}})
    assert (nearly.status_code, nearly.json()["code"]) == (400, 400)
    assert "model" in nearly.json()["message"]
    file = tmp_path / "body"
    for path, size, version in (("task", 16 * MIB + 1, "1.1"), ("tasks", 18 * MIB, "1.1"), ("tasks", 18 * MIB, "2")):
        file.write_bytes(b"x" * size)
        head = (f"--http{version}", "-H", f"x-api-key: {API_KEY}", "-H", "expect:", "--data-binary", f"@{file}")
        status, body = await curl(certificate, *head, str(client.base_url.join(f"/api/v1/{path}")))
        assert status == f"{version} 413", body
        if version == "1.1":  # with HTTP/2 this curl loses the body of an answer that comes before its own
            assert "the body" in json.dumps(json.loads(body))


async def test_the_doctor_finds_nothing_to_mend(client: httpx.AsyncClient, world: ProcessWorld) -> None:
    settings = world.settings.model_copy(update={"public_url": str(client.base_url).rstrip("/")})
    found = await probe(settings, KeyRing(master_keys(world.settings)), client)
    assert [each for each in found if each.outcome != "ok"] == []
    assert len(found) == 5


async def test_clients_get_http_2(client: httpx.AsyncClient, certificate: Path) -> None:
    assert (await curl(certificate, str(client.base_url.join("/livez"))))[0] == "2 200"


async def curl(certificate: Path, *arguments: str) -> tuple[str, bytes]:
    """Send a request with HTTP/2; return its version and status, and the body of the answer."""
    form = ("-w", "%{stderr}%{http_version} %{http_code}")
    process = await asyncio.create_subprocess_exec(
        *(program("curl"), "-s", "--http2", "--cacert", str(certificate), *form, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        body, written = await process.communicate()
    return written.decode(), body


async def test_metrics_are_denied_however_their_path_is_written(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).status_code == 200
    for path in METRICS:
        answer = await client.get(httpx.URL(f"{str(client.base_url).rstrip('/')}{path}"))
        assert answer.status_code in (403, 404), path
        assert "# HELP" not in answer.text, path


async def test_a_client_is_known_by_its_own_address(client: httpx.AsyncClient) -> None:
    headers = {"x-forwarded-for": STRANGER, "forwarded": f"for={STRANGER}", "x-forwarded-proto": "http"}
    made = await client.post("/api/v1/keys", json={"name": "seen from", "scope": "read"}, headers=headers)
    assert made.status_code == 200
    (newest,) = (await client.get("/api/v1/audit", params={"limit": 1})).json()["data"]["data"]
    assert newest["address"] == "127.0.0.1"


async def test_an_encoded_slash_and_a_prefix_that_is_not_stripped_arrive(client: httpx.AsyncClient) -> None:
    assert (await client.get("/ringback/livez")).status_code == 200
    for prefix in ("", "/ringback"):
        await find_nothing(client, f"{prefix}/api/v1/tasks/a%2Fb")


@pytest.mark.parametrize("name", PROXIES)
async def test_a_prefix_that_is_stripped_arrives(
    name: str, world: ProcessWorld, certificate: Path, tmp_path: Path
) -> None:
    proxy, place = PROXIES[name], new_place(tmp_path, certificate, world.port)
    file = rendered(proxy, place, ["prefix-stripped"])
    async with served(proxy, file, place) as url, client_of(url, certificate) as client:
        assert (await client.get("/ringback/livez")).status_code == 200
        await find_nothing(client, "/ringback/api/v1/tasks/a%2Fb")
        hook = await client.post("/ringback/hooks/piapi/T", json={}, headers={"x-webhook-secret": "wrong"})
        assert hook.status_code == 401
        assert (await client.get("/ringback/metrics")).status_code in (403, 404)


async def find_nothing(client: httpx.AsyncClient, path: str) -> None:
    """Ask for a task that does not exist: another answer than for a path that does not exist."""
    answer = await client.get(httpx.URL(f"{str(client.base_url).rstrip('/')}{path}"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "task_not_found"), answer.text


@pytest.mark.parametrize(("name", "repeats_webhooks"), [("nginx", True), ("haproxy", True), ("apache", False)])
async def test_webhooks_alone_are_repeated_when_a_replica_dies_before_its_answer(
    name: str, repeats_webhooks: bool, world: ProcessWorld, certificate: Path, tmp_path: Path
) -> None:
    async with RawServer(READY, dies_at=b"POST") as dying:
        proxy, place = PROXIES[name], new_place(tmp_path, certificate, dying.port, world.port)
        file = rendered(proxy, place, ["replicas"])
        async with served(proxy, file, place) as url, client_of(url, certificate) as client:
            hooks = [await status_of(client, "/hooks/piapi/T") for _ in range(4)]
            creates = [await status_of(client, "/api/v1/task") for _ in range(4)]
        assert set(hooks) == ({401} if repeats_webhooks else {401, LOST})
        died = sum(line.startswith(b"POST /api/") for line in dying.request_lines)
        assert creates.count(LOST) == died > 0


async def status_of(client: httpx.AsyncClient, path: str) -> int:
    """Post an empty document; return the status, `LOST` also for a connection that is closed without an answer."""
    try:
        return (await client.post(path, json={})).status_code
    except httpx.RemoteProtocolError:
        return LOST
