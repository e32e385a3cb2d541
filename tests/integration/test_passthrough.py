"""Requests that are passed on to the provider, and answers that come back as they are, part by part."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from receiver.api.passthrough import FORWARDED_POSTS, UPLOAD_PATH
from receiver.app import create_app
from tests.fakes.forward_provider import Exchange, ForwardProvider, fixed, forward_provider, in_parts
from tests.fakes.raw_server import RawServer
from tests.fakes.world import API_KEY, PROVIDER_KEY, World, in_process

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.sqlite_only("nothing is stored; what is, is in test_passthrough_tasks.py"),
]

CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/speech"
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[World, ForwardProvider]]:
    """One world for the whole module, whose provider does what the present test says."""
    folder = tmp_path_factory.mktemp("world")
    async with (
        forward_provider() as provider,
        in_process(folder, piapi_base_url=provider.url, forward_timeout_seconds="30") as world,
    ):
        yield world, provider


@pytest.fixture
def world(running: tuple[World, ForwardProvider]) -> World:
    return running[0]


@pytest.fixture
def provider(running: tuple[World, ForwardProvider]) -> ForwardProvider:
    provider = running[1]
    provider.answer = fixed(200, {"ok": True})
    provider.calls.clear()
    return provider


@asynccontextmanager
async def with_provider(world: World, **settings: Any) -> AsyncIterator[World]:
    """Run another world, in the same folder's neighbour, with other settings."""
    folder = world.folder / f"other-{len(list(world.folder.iterdir()))}"
    folder.mkdir()
    async with in_process(folder, **settings) as other:
        yield other


@pytest.mark.parametrize("path", [*FORWARDED_POSTS, UPLOAD_PATH])
async def test_a_request_reaches_the_provider_unchanged_and_with_ringback_s_key(
    world: World, provider: ForwardProvider, path: str
) -> None:
    body = '{"model": "gpt-4o",   "text": "grüße"}'.encode()
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "cookie": "a=b",
        "x-forwarded-for": "1",
    }
    answer = await world.api.post(f"{path}?a=1&b=%2Fx+y", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    (call,) = provider.calls
    assert (call.method, call.path, call.query, call.body) == ("POST", path, "a=1&b=%2Fx+y", body)
    assert call.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert call.headers["x-api-key"] == PROVIDER_KEY
    assert (call.headers["content-type"], call.headers["accept"]) == ("application/json", "text/event-stream")
    assert call.headers["content-length"] == str(len(body))
    assert not {"cookie", "x-forwarded-for", "x-request-id"} & call.headers.keys()
    assert API_KEY not in str(call.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {API_KEY}"},
        {"x-api-key": API_KEY},
        {"authorization": f"Bearer {API_KEY}", "x-api-key": API_KEY},
    ],
)
async def test_the_client_s_key_may_come_in_either_header_or_both(
    world: World, provider: ForwardProvider, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=world.base) as client:
        assert (await client.post(CHAT, json=ASKED, headers=headers)).status_code == 200
    assert len(provider.calls) == 1


async def test_an_answer_has_its_own_status_body_and_type_and_none_of_the_provider_s_cookies(
    world: World, provider: ForwardProvider
) -> None:
    provider.answer = fixed(
        201, b"<answer/>", "application/xml", set_cookie="a=b", server="theirs", x_request_id="theirs"
    )
    answer = await world.api.post(CHAT, json=ASKED)
    assert (answer.status_code, answer.content) == (201, b"<answer/>")
    assert (answer.headers["content-type"], answer.headers["content-length"]) == ("application/xml", "9")
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"].startswith("req_pi_")
    assert "x-ratelimit-remaining" in answer.headers


async def test_a_stream_of_events_arrives_event_by_event(world: World, provider: ForwardProvider) -> None:
    read = asyncio.Event()
    events = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % n for n in range(3)]

    async def answer(exchange: Exchange) -> None:
        await exchange.begin(content_type="text/event-stream; charset=utf-8")
        for event in events:
            await exchange.part(event)
            await read.wait()
            read.clear()
        await exchange.end(b"data: [DONE]\n\n")

    provider.answer = answer
    async with world.api.stream("POST", CHAT, json={**ASKED, "stream": True}) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        parts = response.aiter_raw()
        for event in events:
            assert await anext(parts) == event  # the provider sends the next one only then
            read.set()
        assert b"".join([part async for part in parts]) == b"data: [DONE]\n\n"


async def test_the_head_of_an_answer_of_known_length_arrives_before_its_body(
    world: World, provider: ForwardProvider
) -> None:
    has_head = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await exchange.begin(content_type="video/mp4", content_length="4")
        await exchange.part(b"")
        await has_head.wait()
        await exchange.end(b"abcd")

    provider.answer = late
    async with asyncio.timeout(10), world.api.stream("POST", CHAT, json=ASKED) as response:
        assert (response.status_code, response.headers["content-length"]) == (200, "4")
        has_head.set()
        assert await response.aread() == b"abcd"


async def test_binary_answers_are_the_same_byte_for_byte(world: World, provider: ForwardProvider) -> None:
    sound = bytes(range(256)) * 5000
    provider.answer = fixed(200, sound, "audio/mpeg", content_disposition="attachment")
    answer = await world.api.post(SPEECH, json={"model": "tts-1", "input": "hello"})
    assert answer.content == sound
    assert (answer.headers["content-type"], answer.headers["content-length"]) == ("audio/mpeg", str(len(sound)))
    assert answer.headers["content-disposition"] == "attachment"


async def test_an_answer_that_the_provider_packs_nevertheless_is_passed_on_packed(
    world: World, provider: ForwardProvider
) -> None:
    provider.answer = fixed(200, b"packed", "application/json", content_encoding="br")
    async with world.api.stream("POST", CHAT, json=ASKED) as answer:
        assert answer.headers["content-encoding"] == "br"
        assert [part async for part in answer.aiter_raw()] == [b"packed"]
    assert provider.calls[0].headers["accept-encoding"] == "identity"


async def test_the_parts_of_a_form_are_passed_on(world: World, provider: ForwardProvider) -> None:
    files = {"image": ("a.png", b"\x89PNG\0\xff" * 1000, "image/png")}
    answer = await world.api.post("/v1/images/edits", data={"prompt": "a cat"}, files=files)
    assert answer.status_code == 200
    (call,) = provider.calls
    assert call.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert files["image"][1] in call.body


async def test_a_body_is_passed_on_while_the_client_sends_it(world: World, provider: ForwardProvider) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"first": 1,'
        await provider.until(lambda calls: calls and calls[0].body == b'{"first": 1,')
        yield b'"second": 2}'

    answer = await world.api.post(CHAT, content=body(), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert provider.calls[0].body == b'{"first": 1,"second": 2}'


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(world: World, provider: ForwardProvider, chunked: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 10_000

    content = body() if chunked else b"x" * 110_000
    async with with_provider(world, piapi_base_url=provider.url, max_request_bytes="100000") as other:
        answer = await other.api.post(UPLOAD_PATH, content=content)
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (413, 413, None)
    assert "RINGBACK_MAX_REQUEST_BYTES" in answer.json()["message"]
    if chunked:
        await asyncio.wait_for(provider.calls[0].broken.wait(), 10)
    else:
        assert provider.calls == []


@pytest.mark.parametrize("status", [400, 402, 403, 404, 422, 500, 503])
async def test_the_provider_s_errors_are_passed_on(world: World, provider: ForwardProvider, status: int) -> None:
    body = {"error": {"message": "no such model", "type": "invalid_request_error", "code": None}}
    provider.answer = fixed(status, body)
    answer = await world.api.post(CHAT, json=ASKED)
    assert (answer.status_code, answer.json()) == (status, body)


async def test_a_429_is_passed_on_and_obeyed(world: World) -> None:
    async with (
        forward_provider() as provider,
        with_provider(world, piapi_base_url=provider.url, provider_timeout_seconds="1") as other,
    ):
        provider.answer = fixed(429, {"message": "slow down"}, retry_after="60")
        answer = await other.api.post(CHAT, json=ASKED)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
        answer = await other.api.post(CHAT, json=ASKED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert len(provider.calls) == 1


async def test_a_key_that_the_provider_refuses_is_not_the_client_s_fault(
    world: World, provider: ForwardProvider
) -> None:
    provider.answer = fixed(401, {"error": {"message": f"Incorrect API key provided: {PROVIDER_KEY}"}})
    answer = await world.api.post(CHAT, json=ASKED)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (502, "api_error", "provider_unauthorized")
    assert "RINGBACK_PIAPI_API_KEY" in error["message"]
    assert PROVIDER_KEY not in answer.text
    answer = await world.api.post(UPLOAD_PATH, json={})
    assert (answer.status_code, answer.json()["code"]) == (502, 502)
    assert "RINGBACK_PIAPI_API_KEY" in answer.json()["message"]


async def test_a_403_is_about_ringback_s_key_only_if_its_words_are(world: World, provider: ForwardProvider) -> None:
    provider.answer = fixed(403, {"message": "invalid api key"})
    answer = await world.api.post(CHAT, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
    for body in ({"code": 403, "message": "your plan does not allow uploads"}, {}):
        provider.answer = fixed(403, body)
        answer = await world.api.post(UPLOAD_PATH, json={})
        assert (answer.status_code, answer.json()) == (403, body)


async def test_without_a_key_for_the_provider_nothing_is_sent(world: World, provider: ForwardProvider) -> None:
    async with with_provider(world, piapi_base_url=provider.url, piapi_api_key="") as other:
        answer = await other.api.post(CHAT, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
    assert provider.calls == []


@pytest.mark.parametrize("size", [1, 5, len(PROVIDER_KEY) - 1, 1000])
async def test_ringback_s_key_is_hidden_wherever_an_answer_repeats_it(
    world: World, provider: ForwardProvider, size: int
) -> None:
    text = f"data: {PROVIDER_KEY} and {PROVIDER_KEY[:7]} {PROVIDER_KEY}{PROVIDER_KEY}\n\n".encode()
    provider.answer = in_parts([text[at : at + size] for at in range(0, len(text), size)], "text/event-stream")
    answer = await world.api.post(CHAT, json=ASKED)
    assert answer.content == text.replace(PROVIDER_KEY.encode(), b"*" * len(PROVIDER_KEY))


async def test_a_provider_that_cannot_be_reached_is_a_502(world: World) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with with_provider(world, piapi_base_url=url) as other:
            answer = await other.api.post(CHAT, json=ASKED)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unavailable")
            answer = await other.api.post(UPLOAD_PATH, json={})
            assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (502, 502, None)


async def test_a_provider_that_closes_without_an_answer_is_a_502(world: World) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with with_provider(world, piapi_base_url=url) as other:
            response = await other.api.post(CHAT, json=ASKED)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "provider_unavailable")


async def test_a_redirect_is_not_followed(world: World, provider: ForwardProvider) -> None:
    provider.answer = fixed(307, b"", location="http://127.0.0.1:9/")
    answer = await world.api.post(CHAT, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unavailable")
    assert len(provider.calls) == 1


async def test_what_no_server_can_pass_on_is_left_out_or_a_502(world: World) -> None:
    head = b"HTTP/1.1 %b Odd\r\ncontent-type: text/html; \x1b\r\ncontent-disposition: %b\r\ncontent-length: 1\r\n\r\nx"
    for status in (b"200", b"099", b"600", b"999"):
        async with (
            RawServer(head % (status, PROVIDER_KEY.encode())) as server,
            with_provider(world, piapi_base_url=server.url("")) as other,
        ):
            answer = await other.api.post(CHAT, json=ASKED)
            account = await other.api.get("/account/info")
        assert account.status_code == 502
        if status == b"200":
            assert (answer.status_code, answer.content) == (200, b"x")
            assert not {"content-type", "content-disposition"} & set(answer.headers)
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unavailable")


async def test_a_provider_that_is_silent_is_a_504(world: World) -> None:
    async def silent(_: Exchange) -> None:
        await asyncio.Event().wait()

    async with (
        forward_provider() as provider,
        with_provider(world, piapi_base_url=provider.url, forward_timeout_seconds="0.3") as other,
    ):
        provider.answer = silent
        answer = await other.api.post(CHAT, json=ASKED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "provider_timeout")
        await asyncio.wait_for(provider.calls[0].broken.wait(), 10)


async def test_an_answer_that_pauses_too_long_is_broken_off_and_not_taken_for_the_whole(world: World) -> None:
    async def pauses(exchange: Exchange) -> None:
        await exchange.begin(content_type="text/event-stream")
        await exchange.part(b"data: 1\n\n")
        await asyncio.Event().wait()

    async with (
        forward_provider() as provider,
        with_provider(world, piapi_base_url=provider.url, forward_timeout_seconds="0.3") as other,
    ):
        provider.answer = pauses
        async with other.api.stream("POST", CHAT, json=ASKED) as response:
            parts = response.aiter_raw()
            assert await anext(parts) == b"data: 1\n\n"
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(parts)


async def test_an_answer_that_is_cut_or_too_large_is_not_taken_for_the_whole(
    world: World, provider: ForwardProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.providers.piapi.forwarding.LARGEST_ANSWER", 1000)
    provider.answer = in_parts([b"x" * 600, b"y" * 600], "text/plain")
    with pytest.raises(httpx.RemoteProtocolError):
        await world.api.post(CHAT, json=ASKED)
    provider.answer = fixed(200, b"x" * 1001, "text/plain")
    answer = await world.api.post(CHAT, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unavailable")


async def test_a_client_that_disconnects_before_the_answer_ends_the_call(
    world: World, provider: ForwardProvider
) -> None:
    async def silent(_: Exchange) -> None:
        await asyncio.Event().wait()

    provider.answer = silent
    asking = asyncio.create_task(world.api.post(CHAT, json=ASKED))
    await provider.until(lambda calls: calls and calls[0].body)
    asking.cancel()
    await asyncio.wait_for(provider.calls[0].broken.wait(), 10)


async def test_a_client_that_disconnects_within_a_stream_ends_the_call(world: World, provider: ForwardProvider) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin(content_type="text/event-stream")
        await exchange.part(b"data: 1\n\n")
        await asyncio.Event().wait()

    provider.answer = endless
    async with (
        httpx.AsyncClient(base_url=world.base, headers={"x-api-key": API_KEY}) as client,
        client.stream("POST", CHAT, json=ASKED) as response,
    ):
        assert await anext(response.aiter_raw()) == b"data: 1\n\n"
    await asyncio.wait_for(provider.calls[0].broken.wait(), 10)


async def test_files_are_uploaded_to_their_own_host(world: World, provider: ForwardProvider) -> None:
    uploaded = {"code": 200, "data": {"url": "https://files.example.com/a.png"}, "message": "success"}
    async with forward_provider() as uploads:
        uploads.answer = fixed(200, uploaded)
        for url in (uploads.url, f"{uploads.url}{UPLOAD_PATH}"):
            async with with_provider(world, piapi_base_url=provider.url, piapi_upload_url=url) as other:
                answer = await other.api.post(UPLOAD_PATH, json={"file_name": "a.png", "file_data": "AAAA"})
                assert (answer.status_code, answer.json()) == (200, uploaded)
                await other.api.post(CHAT, json=ASKED)
    assert [call.path for call in uploads.calls] == [UPLOAD_PATH] * 2
    assert [call.path for call in provider.calls] == [CHAT] * 2


async def test_a_header_that_no_request_may_have_is_left_out_and_none_is_added(
    world: World, provider: ForwardProvider
) -> None:
    answer = await world.api.post(CHAT, content=b"{}", headers={b"accept-language": "fü".encode("latin-1")})
    assert answer.status_code == 200
    assert not {"accept-language", "content-type"} & provider.calls[0].headers.keys()


async def test_the_models_can_be_asked_for(world: World, provider: ForwardProvider) -> None:
    answer = await world.api.request("GET", "/v1/models", json={})
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert (await world.api.head("/v1/models")).status_code == 200
    assert [(call.method, call.body) for call in provider.calls] == [("GET", b""), ("HEAD", b"")]


async def test_the_provider_gets_the_path_without_ringback_s_own_prefix(
    world: World, provider: ForwardProvider
) -> None:
    async with with_provider(world, piapi_base_url=f"{provider.url}/theirs", root_path="/ours") as other:
        settings = other.settings
    app = create_app(settings, ["a-master-key-for-tests"])
    transport = httpx.ASGITransport(app, root_path="/ours")
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        answer = await client.post(f"http://test/ours{CHAT}", json=ASKED, headers={"x-api-key": API_KEY})
    assert answer.status_code == 200, answer.text
    assert provider.calls[0].path == f"/theirs{CHAT}"


async def test_a_client_that_breaks_off_its_body_ends_the_call(world: World, provider: ForwardProvider) -> None:
    host, port = "127.0.0.1", world.port
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\ncontent-length: 1000\r\n\r\nsome of it"
    writer.write(head.encode())
    await provider.until(lambda calls: calls and calls[0].body == b"some of it")
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(provider.calls[0].broken.wait(), 10)
    assert await reader.read() == b""


async def test_an_answer_to_http_1_0_ends_with_the_connection_and_a_cut_one_with_a_reset(
    world: World, provider: ForwardProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.providers.piapi.forwarding.LARGEST_ANSWER", 10)
    request = f"POST {CHAT} HTTP/1.0\r\nx-api-key: {API_KEY}\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    provider.answer = in_parts([b"x" * 8, b"y" * 8], "text/plain")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(request)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_call_ends_with_its_key(world: World, provider: ForwardProvider, has_begun: bool) -> None:
    async def endless(exchange: Exchange) -> None:
        if has_begun:
            await exchange.begin(content_type="text/event-stream")
            await exchange.part(b"data: 1\n\n")
        await asyncio.Event().wait()

    provider.answer = endless
    key = (await world.api.post("/api/v1/keys", json={"name": "brief"})).json()["data"]
    asking = asyncio.create_task(world.api.post(CHAT, json=ASKED, headers={"x-api-key": key["key"]}))
    await provider.until(lambda calls: calls and calls[0].body)
    assert (await world.api.delete(f"/api/v1/keys/{key['id']}")).status_code == 200
    await asyncio.wait_for(provider.calls[0].broken.wait(), 10)
    if not has_begun:
        assert (await asking).status_code == 401
        return
    with pytest.raises(httpx.TransportError):
        await asking


async def test_only_a_key_that_may_write_is_passed_on(world: World, provider: ForwardProvider) -> None:
    created = await world.api.post("/api/v1/keys", json={"name": "reader", "scope": "read"})
    reader = {"x-api-key": created.json()["data"]["key"]}
    answer = await world.api.post(CHAT, json=ASKED, headers=reader)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    answer = await world.api.post(UPLOAD_PATH, json={}, headers=reader)
    assert (answer.status_code, answer.json()["code"]) == (403, 403)
    async with httpx.AsyncClient(base_url=world.base) as stranger:
        answer = await stranger.post(CHAT, json=ASKED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_authorization_header")
    assert provider.calls == []
    assert (await world.api.get("/v1/models", headers=reader)).status_code == 200


async def test_an_idempotency_key_is_not_obeyed(world: World, provider: ForwardProvider) -> None:
    for _ in range(2):
        answer = await world.api.post(CHAT, json=ASKED, headers={"idempotency-key": "same"})
        assert "x-idempotency-replayed" not in answer.headers
    assert len(provider.calls) == 2


async def test_the_key_s_rate_limit_applies(world: World, provider: ForwardProvider) -> None:
    created = await world.api.post("/api/v1/keys", json={"name": "slow", "rate_limit": 0.001})
    slow = {"x-api-key": created.json()["data"]["key"]}
    assert (await world.api.post(CHAT, json=ASKED, headers=slow)).status_code == 200
    answer = await world.api.post(CHAT, json=ASKED, headers=slow)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", CHAT, 405), ("POST", "/v1/models", 405), ("POST", "/v1/nothing", 404), ("POST", "/v1/", 404)],
)
async def test_nothing_else_is_passed_on(
    world: World, provider: ForwardProvider, method: str, path: str, status: int
) -> None:
    answer = await world.api.request(method, httpx.URL(world.base + path), json={})
    assert answer.status_code == status
    assert provider.calls == []


async def test_no_secret_and_no_body_is_in_the_log(world: World, provider: ForwardProvider) -> None:
    with capture_logs() as records:
        provider.answer = fixed(401, {"error": PROVIDER_KEY})
        await world.api.post(CHAT, json={"planted": "body"})
        provider.answer = fixed(500, {"error": "planted"})
        await world.api.post(CHAT, json={"planted": "body"})
    text = repr(records)
    for secret in (API_KEY, PROVIDER_KEY, "planted"):
        assert secret not in text
