"""HTTP as unusual clients speak it, on raw sockets: offers of other protocols, HTTP/1.0, blanks in headers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.inbound import PICTURE, SILENT, hook_secret, notice
from tests.fakes.world import API_KEY, World, in_process, in_processes

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps({"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": "a cat"}}).encode()
H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


class RawClient:
    """One connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers and body of the next response; without a length the body is all that follows."""
        async with asyncio.timeout(30):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status_line, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = headers.get("content-length")
            body = await (self._reader.read() if length is None else self._reader.readexactly(int(length)))
        return int(status_line.split()[1]), headers, body

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(30):
            return await self._reader.readuntil(mark)

    async def ended(self) -> bytes:
        """Return all that comes until the service closes the connection."""
        async with asyncio.timeout(30):
            return await self._reader.read()


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


def request(method: str, path: str, *headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: ringback", f"X-API-Key: {API_KEY}", *headers]
    if body and not any(line.lower().startswith("transfer-encoding") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes) -> bytes:
    middle = len(body) // 2
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:middle], body[middle:], b""))


async def created_id(client: RawClient) -> str:
    status, _, body = await client.answer()
    assert status == 200, body
    return str(json.loads(body)["data"]["task_id"])


async def test_an_offer_of_h2c_is_ignored_and_the_body_kept(world: World) -> None:
    async with connected(world) as client:
        client.send(request("POST", "/api/v1/task", *H2C, body=BODY))
        task_id = await created_id(client)
        client.send(request("GET", f"/api/v1/tasks/{task_id}"))  # the connection stays open, and stays HTTP/1.1
        status, headers, body = await client.answer()
    assert (status, json.loads(body)["data"]["task_id"]) == (200, task_id)
    assert "upgrade" not in headers


async def test_an_offer_of_h2c_with_a_chunked_body_is_ignored(world: World) -> None:
    async with connected(world) as client:
        client.send(request("POST", "/api/v1/task", *H2C, "Transfer-Encoding: chunked", body=chunked(BODY)))
        first = await created_id(client)
        client.send(request("POST", "/api/v1/task", *H2C, "Transfer-Encoding: chunked", body=chunked(BODY)))
        assert await created_id(client) != first


async def test_an_offer_that_arrives_in_pieces_is_ignored(world: World) -> None:
    whole = request("POST", "/api/v1/task", *H2C, body=BODY)
    async with connected(world) as client:
        for start in range(0, len(whole), 37):
            client.send(whole[start : start + 37])
            await asyncio.sleep(0)
        await created_id(client)


async def test_requests_that_follow_an_offer_without_waiting_are_answered_in_order(world: World) -> None:
    async with connected(world) as client:
        client.send(
            request("GET", "/livez")
            + request("POST", "/api/v1/task", *H2C, body=BODY)
            + request("GET", "/livez", *H2C)
            + request("GET", "/nothing")
        )
        assert (await client.answer())[0] == 200
        await created_id(client)
        assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == 404


async def test_a_client_that_waits_for_100_continue_and_offers_h2c_sends_its_body(world: World) -> None:
    async with connected(world) as client:
        client.send(request("POST", "/api/v1/task", *H2C, "Expect: 100-continue", f"Content-Length: {len(BODY)}"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        await created_id(client)


@pytest.mark.parametrize("offered", ["websocket", "h2c", "TLS/1.2, HTTP/2.0", "something/else"])
async def test_any_offered_protocol_is_ignored(world: World, offered: str) -> None:
    offer = ("Connection: Upgrade", f"Upgrade: {offered}", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    async with connected(world) as client:
        client.send(request("GET", "/api/v1/tasks", *offer, "Sec-WebSocket-Version: 13"))
        assert (await client.answer())[0] == 200
        client.send(request("GET", "/livez"))
        assert (await client.answer())[0] == 200


async def test_a_webhook_with_an_offer_of_h2c_is_applied(world: World) -> None:
    task_id = await world.created(SILENT)
    provider_task_id = (await world.task(task_id))["provider_task_id"]
    body = json.dumps(notice(provider_task_id, "completed", output=PICTURE)).encode()
    async with connected(world) as client:
        secret = f"x-webhook-secret:  {hook_secret(world, task_id)} "
        client.send(request("POST", f"/hooks/piapi/{task_id}", *H2C, secret, body=body))
        status, _, answer = await client.answer()
    assert status == 200, answer
    assert (await world.task(task_id))["status"] == "completed"


@pytest.mark.no_database
async def test_the_served_process_ignores_offers_too(tmp_path: Path) -> None:
    async with in_processes(tmp_path) as world, connected(world) as client:
        client.send(request("POST", "/api/v1/task", *H2C, body=BODY))
        await created_id(client)
        client.send(request("GET", "/livez", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"))
        assert (await client.answer())[0] == 200


async def test_connect_is_refused_and_nothing_else_happens(world: World) -> None:
    async with connected(world) as client:
        client.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        assert (await client.answer())[0] == 400
        assert await client.ended() == b""


async def test_an_http_1_0_client_gets_a_response_of_known_length_and_the_end_of_the_connection(world: World) -> None:
    for keep_alive in ((), ("Connection: keep-alive",)):
        async with connected(world) as client:
            client.send(request("POST", "/api/v1/task", *keep_alive, body=BODY, version="1.0"))
            status, headers, body = await client.answer()
            assert (status, headers["connection"]) == (200, "close"), body
            assert "transfer-encoding" not in headers
            assert json.loads(body)["code"] == 200
            assert await client.ended() == b""


async def test_an_http_1_0_client_gets_the_stream_without_chunks(world: World) -> None:
    async with connected(world) as client:
        client.send(request("GET", "/api/v1/events", "Accept: text/event-stream", version="1.0"))
        head = (await client.until(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200")
        assert b"connection: close" in head
        assert b"transfer-encoding" not in head
        assert b"content-length" not in head
        await client.until(b"from here on\n")
        await world.created()
        text = await client.until(b"event: task.completed\n")
    assert {line.split(b":")[0] for line in text.split(b"\n")} <= {b"id", b"event", b"data", b"retry", b""}


async def test_a_stream_to_http_1_0_ends_with_the_service(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        client = RawClient(reader, writer)
        client.send(request("GET", "/api/v1/events", "Accept: text/event-stream", version="1.0"))
        await client.until(b"\r\n\r\n")
    rest = await client.ended()
    assert b"\r\n0\r\n" not in rest
    writer.close()


async def test_head_is_answered_like_get_without_a_body(world: World) -> None:
    task_id = await world.created()
    for path in ("/livez", "/api/v1/tasks", f"/api/v1/task/{task_id}", f"/api/v1/tasks/{task_id}"):
        for version in ("1.1", "1.0"):
            async with connected(world) as client:
                client.send(request("HEAD", path, "Connection: close", version=version))
                head = await client.until(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                assert await client.ended() == b""


@pytest.mark.parametrize(
    "header",
    [
        f"X-API-Key:  {API_KEY} \t",
        f"X-API-Key:{API_KEY}",
        f"Authorization: bearer  {API_KEY}  ",
        f"Authorization:\tBEARER\t{API_KEY}",
        f"X-API-Key: \r\nAuthorization: Bearer {API_KEY}",
    ],
)
async def test_blanks_around_an_api_key_are_not_part_of_it(world: World, header: str) -> None:
    async with connected(world) as client:
        client.send(f"GET /api/v1/tasks HTTP/1.1\r\nHost: ringback\r\n{header}\r\n\r\n".encode())
        status, _, body = await client.answer()
    assert status == 200, body
