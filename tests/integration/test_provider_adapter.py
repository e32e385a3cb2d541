"""The adapter of the providers in code, against a server on loopback that names odd addresses or has no keys."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from receiver.providers import Accepted, Found, NewTask, NoAnswer, ProviderTask, Refused, Signature
from receiver.providers.accounts import ProviderAccount
from receiver.providers.adapter import Adapter
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.registry import APIS
from receiver.sandbox.signatures import public_jwks, signed_by_key, standard_headers
from tests.integration.scripted_piapi import FakeServer, reply

pytestmark = pytest.mark.no_database("an adapter asks the provider alone")

MODEL = "fal-ai/flux/dev"
ELSEWHERE = (
    "https://[",
    "https://other.example.com:99999/x",
    "http:/other.example.com/x",
    "file:///etc/hosts",
    "other.example.com",
    "https://other.example.com/a/../../x",
    "\thttps://other.example.com/x",
    "",
)


@asynccontextmanager
async def adapter_at(url: str, name: str = "fal", key: str | None = "a-key-of-fal-s") -> AsyncIterator[Adapter]:
    credentials = {} if key is None else {"api_key": key}
    account = ProviderAccount(provider=name, credentials=credentials, base_url=url)
    adapter = Adapter(APIS[name], account, timeout=5, rate_limiter=RateLimiter(1000))
    try:
        yield adapter
    finally:
        await adapter.aclose()


@asynccontextmanager
async def another_server() -> AsyncIterator[FakeServer]:
    other = FakeServer()
    listening = await asyncio.start_server(other.serve, "127.0.0.1", 0)
    other.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield other
    finally:
        listening.close()
        await other.finish()


@pytest.mark.parametrize("url", ELSEWHERE, ids=repr)
async def test_no_address_that_the_provider_names_raises_or_leads_elsewhere(server: FakeServer, url: str) -> None:
    server.responds(reply(200, {"status": "IN_QUEUE", "results": [], "next": url}))
    async with adapter_at(server.url) as fal, adapter_at(server.url, "replicate") as replicate:
        outcome = await fal.fetch(ProviderTask("r1", {"status": url}, MODEL), attempt=1)
        assert isinstance(outcome, Found | NoAnswer)
        await fal.cancel(ProviderTask("r1", {"cancel": url}, MODEL))
        if url not in ("", "https://other.example.com:99999/x", "\thttps://other.example.com/x"):
            found = await replicate.history(model="a/b", since=datetime(2026, 1, 1, tzinfo=UTC))
            assert not found.is_complete
    assert all(request.headers["host"] in server.url for request in server.requests)


async def test_what_follows_the_path_of_a_base_url_is_not_taken_for_another_address(server: FakeServer) -> None:
    server.responds(reply(200, {"status": "IN_QUEUE"}))
    async with another_server() as other, adapter_at(f"{server.url}/fal") as fal:
        for path in (f"/fal{other.url}/x", "/fallen/x", "/fal/x", "/fal"):
            await fal.fetch(ProviderTask("r1", {"status": f"{server.url}{path}"}, MODEL), attempt=1)
        assert other.requests == []
    targets = [request.target for request in server.requests]
    assert targets == [f"/fal/fal{other.url}/x", "/fal/fallen/x", "/fal/x", "/fal/"]


async def test_a_task_whose_path_would_lead_elsewhere_is_refused_and_not_asked_for(server: FakeServer) -> None:
    server.responds(reply(200, {"id": "p", "status": "starting", "name": "batches/1"}))
    async with adapter_at(server.url, "replicate") as replicate, adapter_at(server.url, "gemini") as gemini:
        assert isinstance(await replicate.fetch(ProviderTask(".."), attempt=None), NoAnswer)
        assert isinstance(await gemini.fetch(ProviderTask("batches/../files/1"), attempt=None), NoAnswer)
        assert server.requests == []
        assert isinstance(await replicate.submit(NewTask(model="a/b", task_type="", input={})), Accepted)
        assert isinstance(await replicate.submit(NewTask(model="a/..", task_type="", input={})), Refused)


async def test_while_there_are_no_signing_keys_they_are_not_asked_for_by_every_webhook(server: FakeServer) -> None:
    server.responds(reply(500))
    async with adapter_at(server.url) as fal:
        found = await asyncio.gather(*(fal.check_signature(b"{}", []) for _ in range(20)))
    assert set(found) == {Signature.UNCHECKED}
    assert len(server.requests) == 1


async def test_signing_keys_are_fetched_once_a_day(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("receiver.providers.adapter.monotonic", lambda: clock[0])
    key = Ed25519PrivateKey.generate()
    headers = standard_headers(b"{}", lambda content: [signed_by_key(key, content)])
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    server.responds(reply(200, public_jwks([key])))
    async with adapter_at(server.url, "gemini") as gemini:
        for seconds, fetches in ((0, 1), (0, 1), (86_399, 1), (2, 2), (86_399, 2)):
            clock[0] += seconds
            assert await gemini.check_signature(b"{}", given) == Signature.VALID
            assert len(server.requests) == fetches


@pytest.mark.parametrize("name", ["fal", "replicate", "gemini", "openai"])
async def test_without_a_key_a_signature_is_not_checked_and_nothing_raises(server: FakeServer, name: str) -> None:
    async with adapter_at(server.url, name, None) as adapter:
        signature = await adapter.check_signature(b"{}", [])
    assert signature == (Signature.WRONG if name == "openai" else Signature.UNCHECKED)
    assert server.requests == []


@pytest.mark.parametrize("name", APIS)
async def test_a_key_with_a_line_break_at_its_end_is_sent_without_it(server: FakeServer, name: str) -> None:
    server.responds(reply(401))
    async with adapter_at(server.url, name, " a-key-of-mine\r\n") as adapter:
        assert isinstance(await adapter.fetch(ProviderTask("r1", None, MODEL), attempt=1), NoAnswer)
    (request,) = server.requests
    sent = request.headers.get("authorization") or request.headers["x-goog-api-key"]
    assert sent.endswith("a-key-of-mine")
