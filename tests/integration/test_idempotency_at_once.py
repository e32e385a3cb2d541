"""Concurrent requests with one `Idempotency-Key`: one does the work, the others get the same response."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from receiver.api import idempotency, webhooks
from receiver.app import create_app
from receiver.domain.ids import new_id
from receiver.outbound.ping import send_ping
from receiver.serving.master_keys import master_keys
from receiver.storage import idempotency as storage
from tests.fakes.rows import eventually, select
from tests.fakes.servers import served
from tests.fakes.world import API_KEY, World

REPLAYED = "x-idempotency-replayed"
replicas = pytest.mark.postgresql_only("several processes")


class Hold:
    """Work that goes on until it is released: a ping whose subscriber does not respond."""

    def __init__(self, world: World, path: str) -> None:
        self._world = world
        self._path = path
        self._key = new_id()
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.pings = 0

    @classmethod
    async def on(cls, world: World) -> "Hold":
        webhook = await world.webhook(event_types=["run.completed"])
        hold = cls(world, f"/api/v1/webhooks/{webhook['id']}/test")
        world.subscriber.answer = lambda _number, _request: hold._answer()
        return hold

    async def _answer(self) -> int:
        self.pings += 1
        self.begun.set()
        await self.let_go.wait()
        return 200

    def ask(self, client: httpx.AsyncClient | None = None, **body: Any) -> "asyncio.Task[httpx.Response]":
        client = client or self._world.api
        headers = {"idempotency-key": self._key}
        return asyncio.create_task(client.post(self._path, json=body, headers=headers))


@pytest.fixture
async def hold(world: World) -> Hold:
    return await Hold.on(world)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Callable[[int], Any]:
    """Count the calls of a function; return a function that waits for a number of calls."""
    original, calls, news = getattr(owner, name), [0], asyncio.Condition()

    async def count() -> None:
        async with news:
            calls[0] += 1
            news.notify_all()

    def counting(*arguments: Any) -> Any:
        counts.add(asyncio.ensure_future(count()))
        return original(*arguments)

    async def until(number: int) -> None:
        async with asyncio.timeout(20), news:
            await news.wait_for(lambda: calls[0] >= number)

    counts: set[asyncio.Future[None]] = set()
    monkeypatch.setattr(owner, name, counting)
    return until


@asynccontextmanager
async def replica(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Run another Ringback on the world's database; yield a client of it."""
    async with (
        served(create_app(world.settings, master_keys(world.settings))) as base,
        httpx.AsyncClient(base_url=base, headers={"x-api-key": API_KEY}, timeout=40) as client,
    ):
        yield client


def one_response(first: httpx.Response, *others: httpx.Response) -> bool:
    for other in others:
        assert (other.headers.get(REPLAYED), other.status_code) == ("true", first.status_code)
        assert other.headers["x-request-id"] != first.headers["x-request-id"]
    return REPLAYED not in first.headers and {other.content for other in others} == {first.content}


async def test_in_one_process_the_others_wait_and_get_the_same_response(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = counted(monkeypatch, idempotency, "_response_of")
    first = hold.ask()
    await hold.begun.wait()
    others = [hold.ask() for _ in range(5)]
    await waiting(5)
    assert not any(each.done() for each in (first, *others))
    hold.let_go.set()
    assert one_response(await first, *[await each for each in others])
    assert hold.pings == 1


async def test_of_many_concurrent_requests_one_does_the_work(world: World) -> None:
    key = {"idempotency-key": new_id()}
    body = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}
    answers = await asyncio.gather(*(world.api.post("/api/v1/task", json=body, headers=key) for _ in range(20)))
    assert len({answer.content for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert (await world.provider_stats())["created"] == 1


async def test_another_body_is_refused_while_the_first_request_is_in_progress_too(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = counted(monkeypatch, idempotency, "_response_of")
    first = hold.ask()
    await hold.begun.wait()
    other = hold.ask(another="body")
    await waiting(1)
    hold.let_go.set()
    assert (await other).json()["error"]["code"] == "idempotency_key_mismatch"
    assert (await first).status_code == 200
    assert hold.pings == 1


async def test_a_request_that_waited_for_a_5xx_does_the_work(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = counted(monkeypatch, idempotency, "_response_of")

    async def fails(*given: Any) -> Any:
        monkeypatch.setattr(webhooks, "send_ping", send_ping)
        await send_ping(*given)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(webhooks, "send_ping", fails)
    first = hold.ask()
    await hold.begun.wait()
    others = [hold.ask() for _ in range(3)]
    await waiting(3)
    hold.let_go.set()
    assert (await first).status_code == 500
    worked, *told = sorted([await each for each in others], key=lambda answer: REPLAYED in answer.headers)
    assert one_response(worked, *told)
    assert hold.pings == 2


async def test_a_request_that_waits_too_long_is_a_503_with_retry_after(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hold.ask()
    await hold.begun.wait()
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 0.05)
    refused = await hold.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "idempotency_key_in_use")
    assert refused.headers["retry-after"] == str(refused.json()["error"]["retry_after"]) == "1"
    hold.let_go.set()
    assert one_response(await first, await hold.ask())


@replicas
async def test_in_another_process_the_other_waits_and_gets_the_same_response(
    world: World, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = counted(monkeypatch, storage, "leased")
    async with replica(world) as there:
        first = hold.ask()
        await hold.begun.wait()
        others = [hold.ask(there) for _ in range(3)]
        await looked(2)
        assert not any(each.done() for each in (first, *others))
        hold.let_go.set()
        assert one_response(await first, *[await each for each in others])
    assert hold.pings == 1


@replicas
async def test_of_many_concurrent_requests_to_two_processes_one_does_the_work(world: World) -> None:
    key = {"idempotency-key": new_id()}
    body = {"endpoint_url": world.subscriber.url}
    async with replica(world) as there:
        clients = [world.api, there] * 10
        answers = await asyncio.gather(*(each.post("/api/v1/webhooks", json=body, headers=key) for each in clients))
    assert len({answer.content for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert len(select(world, "SELECT id FROM subscription")) == 1


@replicas
async def test_the_lease_of_long_work_is_renewed(world: World, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(idempotency, "_RENEW_SECONDS", 0.1)
    async with replica(world) as there:
        first = hold.ask()
        await hold.begun.wait()
        created = select(world, "SELECT created_at AS moment FROM idempotency_key")[0]["moment"]
        other = hold.ask(there)
        renewed = (
            f"SELECT 1 AS is_so FROM idempotency_key WHERE lease_until > timestamptz '{created}Z' + interval '4.5 s'"
        )
        await eventually(world, renewed, lambda rows: rows)  # so the first lease would have ended
        hold.let_go.set()
        assert one_response(await first, await other)
    assert hold.pings == 1


@replicas
async def test_work_whose_lease_ended_is_taken_over_and_its_late_response_is_not_sent(
    world: World, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(idempotency, "_RENEW_SECONDS", 3600.0)
    async with replica(world) as there:
        first = hold.ask()
        await hold.begun.wait()
        hold.begun.clear()
        other = hold.ask(there)
        await hold.begun.wait()
        hold.let_go.set()
        late, answer = await first, await other
        assert (late.status_code, late.json()["error"]["code"]) == (503, "idempotency_key_in_use")
        assert one_response(answer, await hold.ask())


@replicas
async def test_after_a_5xx_another_process_takes_over_at_once(
    world: World, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 2.0)
    hold.let_go.set()
    async with replica(world) as there:
        with monkeypatch.context() as broken:
            broken.setattr(webhooks, "send_ping", None)
            assert (await hold.ask()).status_code == 500
        answer = await hold.ask(there)
        assert (answer.status_code, REPLAYED in answer.headers) == (200, False)
