"""The sandbox on a real socket, with a real subscriber: its webhooks, and the connections that it closes."""

import asyncio
import gzip
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox import SandboxOptions, create_sandbox
from tests.fakes.servers import served

pytestmark = pytest.mark.no_database("the sandbox stands for a third party's service")

SECRET = "whs-1"
QUICK = {"webhook_retry_seconds": 0.0, "duration": 0.02, "pending_seconds": 0.0}


class Subscriber:
    """Receives webhooks. Responds with the statuses in `answers` in turn, then with 200."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: deque[int] = deque()
        self.received: asyncio.Queue[Request] = asyncio.Queue()

    async def receive(self, request: Request) -> Response:
        """Answer a webhook and store it."""
        await request.body()
        self.received.put_nowait(request)
        return Response(status_code=self.answers.popleft() if self.answers else 200)

    async def next(self) -> Request:
        """Wait for the next webhook and return it."""
        async with asyncio.timeout(5):
            return await self.received.get()

    async def next_task(self) -> dict[str, Any]:
        """Return the `data` of the next webhook."""
        task: dict[str, Any] = orjson.loads(await (await self.next()).body())["data"]
        return task

    async def statuses(self, count: int) -> list[str]:
        """Return the status words of the next `count` webhooks."""
        return [(await self.next_task())["status"] for _ in range(count)]


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    app = Starlette(routes=[Route("/hooks/{name}", subscriber.receive, methods=["POST"])])
    async with served(app) as address:
        subscriber.url = f"{address}/hooks/t1"
        yield subscriber


@asynccontextmanager
async def sandbox(http: Literal["httptools", "h11"] = "httptools", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_sandbox(SandboxOptions(**{**QUICK, **options}))
    async with (
        served(app, http=http) as address,
        httpx.AsyncClient(base_url=address, headers={"x-api-key": "k"}, trust_env=False) as client,
    ):
        yield client


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with sandbox() as client:
        yield client


def body(subscriber: Subscriber, *, secret: str = SECRET, **script: Any) -> dict[str, Any]:
    return {
        "model": "Qubico/flux1-dev",
        "task_type": "txt2img",
        "input": {"sandbox": script},
        "config": {"webhook_config": {"endpoint": subscriber.url, "secret": secret}},
    }


async def create(client: httpx.AsyncClient, subscriber: Subscriber, **given: Any) -> str:
    answer = await client.post("/api/v1/task", json=body(subscriber, **given))
    assert answer.status_code == 200, answer.text
    task_id: str = answer.json()["data"]["task_id"]
    return task_id


async def notices(client: httpx.AsyncClient) -> dict[str, int]:
    counts: dict[str, int] = (await client.get("/sandbox/stats")).json()["notices"]
    return counts


async def create_and_wait(client: httpx.AsyncClient, subscriber: Subscriber, **given: Any) -> dict[str, int]:
    """Create a task, wait until the notice of its end is acknowledged or given up, and return the counts."""
    await create(client, subscriber, webhook="before_answer", **given)
    return await notices(client)


async def test_a_notice_contains_the_secret_and_the_task(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    task_id = await create(client, subscriber)
    notice = await subscriber.next()
    sent = orjson.loads(await notice.body())
    assert notice.headers["x-webhook-secret"] == SECRET
    assert set(sent) == {"timestamp", "data"}
    assert sent["data"]["task_id"] == task_id
    assert sent["data"]["config"]["webhook_config"] == {"endpoint": subscriber.url, "secret": SECRET}


async def test_statuses_are_notified_in_order(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber)
    assert await subscriber.statuses(3) == ["pending", "processing", "completed"]


async def test_without_a_secret_the_header_is_absent(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, secret="")
    assert "x-webhook-secret" not in (await subscriber.next()).headers


async def test_a_refused_notice_is_sent_again_and_delays_no_other(
    client: httpx.AsyncClient, subscriber: Subscriber
) -> None:
    subscriber.answers.extend([503, 200, 200])
    await client.post("/sandbox/options", json={"webhook_retry_seconds": 0.2})
    await create(client, subscriber)
    assert await subscriber.statuses(4) == ["pending", "processing", "completed", "pending"]


async def test_after_three_attempts_a_notice_is_given_up(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    subscriber.answers.extend([500, 301, 404])
    counts = await create_and_wait(client, subscriber)
    assert subscriber.received.qsize() == 3
    assert counts == {"sent": 1, "lost": 0, "acknowledged": 0, "failed": 3, "given_up": 1, "in_flight": 0}


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1/unreachable", "not a url", "http://[::1"])
async def test_notices_to_an_unreachable_endpoint_are_given_up(
    client: httpx.AsyncClient, subscriber: Subscriber, endpoint: str
) -> None:
    subscriber.url = endpoint
    counts = await create_and_wait(client, subscriber)
    assert (counts["failed"], counts["given_up"]) == (3, 1)


async def test_the_end_is_acknowledged_before_the_create_is_answered(
    client: httpx.AsyncClient, subscriber: Subscriber
) -> None:
    answer = await client.post("/api/v1/task", json=body(subscriber, webhook="before_answer"))
    assert answer.json()["data"]["status"] == "pending"
    assert subscriber.received.qsize() == 1
    assert await subscriber.statuses(1) == ["completed"]
    assert (await notices(client))["acknowledged"] == 1


async def test_lost_notices_are_counted_and_never_sent(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="lost")
    # The next task takes as long, so it ends after the lost one.
    counts = await create_and_wait(client, subscriber)
    assert subscriber.received.qsize() == counts["sent"] == 1
    assert counts["lost"] == 3


async def test_notices_are_sent_twice(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="twice")
    expected = ["pending", "pending", "processing", "processing", "completed", "completed"]
    assert await subscriber.statuses(6) == expected


async def test_the_end_is_sent_first(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="reordered")
    assert await subscriber.statuses(3) == ["completed", "processing", "pending"]


async def test_only_the_end_is_notified(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="terminal_only", outcome="failed")
    assert await subscriber.statuses(1) == ["failed"]
    assert (await notices(client))["sent"] == 1


async def test_the_secret_is_wrong(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="wrong_secret")
    assert (await subscriber.next()).headers["x-webhook-secret"] != SECRET


async def test_the_end_is_notified_late(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    task_id = await create(client, subscriber, webhook="late", late_seconds=0.1, duration=0)
    assert await subscriber.statuses(2) == ["pending", "processing"]
    answer = await client.get(f"/api/v1/task/{task_id}")
    assert answer.json()["data"]["status"] == "completed"
    assert (await notices(client))["in_flight"] >= 1
    assert await subscriber.statuses(1) == ["completed"]


async def test_the_body_is_not_json(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="not_json")
    with pytest.raises(orjson.JSONDecodeError):
        await subscriber.next_task()


async def test_the_body_is_too_large(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="too_large", outcome="never")
    sent = await (await subscriber.next()).body()
    assert len(sent) > 2 * 1024 * 1024
    assert orjson.loads(sent)["data"]["status"] == "pending"


async def test_progress_logs_and_an_unknown_word_are_sent_while_processing(
    client: httpx.AsyncClient, subscriber: Subscriber
) -> None:
    await create(client, subscriber, progress=2, logs=1, extra_status="warming up")
    received = [await subscriber.next_task() for _ in range(6)]
    assert [task["status"] for task in received] == [
        "pending",
        "processing",
        "processing",
        "warming up",
        "processing",
        "completed",
    ]
    assert [received[at]["output"]["percent"] for at in (2, 4)] == [33, 66]
    assert [task["logs"] for task in received[:3]] == [None, [], ["step 1 of 1"]]


async def test_a_failure_is_corrected(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, outcome="failed_then_completed")
    assert await subscriber.statuses(4) == ["pending", "processing", "failed", "completed"]


async def test_the_output_may_come_after_the_end(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, webhook="terminal_only", outcome="output_later")
    first, second = await subscriber.next_task(), await subscriber.next_task()
    assert (first["status"], first["output"]) == (second["status"], {}) == ("completed", {})
    assert second["output"]["image_url"]


async def test_a_notice_may_be_compressed(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    task_id = await create(client, subscriber, body="gzip")
    notice = await subscriber.next()
    assert notice.headers["content-encoding"] == "gzip"
    assert orjson.loads(gzip.decompress(await notice.body()))["data"]["task_id"] == task_id


async def test_a_notice_may_hold_what_strict_readers_refuse(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    await create(client, subscriber, body="nan")
    sent = await (await subscriber.next()).body()
    assert b'"note": NaN' in sent
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(sent)


async def test_a_staged_task_is_notified_when_it_is_admitted(subscriber: Subscriber) -> None:
    async with sandbox(concurrency=1) as client:
        first = await create(client, subscriber, webhook="lost", outcome="never")
        await create(client, subscriber)
        assert await subscriber.statuses(1) == ["staged"]
        await client.post(f"/sandbox/tasks/{first}/advance", json={"status": "completed"})
        assert await subscriber.statuses(3) == ["pending", "processing", "completed"]


async def test_a_cancelled_task_is_notified(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    task_id = await create(client, subscriber, webhook="terminal_only", pending_seconds=3600)
    await client.delete(f"/api/v1/task/{task_id}")
    assert await subscriber.statuses(1) == ["cancelled"]


async def test_a_forced_status_is_notified_and_releases_held_notices(
    client: httpx.AsyncClient, subscriber: Subscriber
) -> None:
    task_id = await create(client, subscriber, webhook="reordered", duration=3600, extra_status="x")
    await client.post(f"/sandbox/tasks/{task_id}/advance", json={"status": "completed"})
    assert (await subscriber.statuses(2))[0] == "completed"


async def test_with_a_lose_share_of_one_only_scripts_with_sent_are_notified(
    subscriber: Subscriber,
) -> None:
    async with sandbox(lose_share=1.0) as client:
        await create(client, subscriber)
        await create(client, subscriber, webhook="sent")
        assert await subscriber.statuses(3) == ["pending", "processing", "completed"]
        assert subscriber.received.empty()


async def test_shares_duplicate_and_reorder(subscriber: Subscriber) -> None:
    async with sandbox(duplicate_share=1.0, reorder_share=1.0) as client:
        await create(client, subscriber)
        expected = ["completed", "completed", "processing", "processing", "pending", "pending"]
        assert await subscriber.statuses(6) == expected


async def test_the_same_seed_repeats_the_same_faults(subscriber: Subscriber) -> None:
    async def lost() -> int:
        async with sandbox(lose_share=0.5, seed=7) as client:
            for _ in range(10):
                await create(client, subscriber)
            # It takes as long as the others and is made last: at its end, the faults of the others are already chosen.
            return (await create_and_wait(client, subscriber))["lost"]

    assert await lost() == await lost() > 0


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_cut_connection_has_no_answer_but_makes_the_task(
    subscriber: Subscriber, http: Literal["httptools", "h11"], caplog: pytest.LogCaptureFixture
) -> None:
    async with sandbox(http) as client:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.post("/api/v1/task", json=body(subscriber, submit="cut"))
        assert await subscriber.statuses(3) == ["pending", "processing", "completed"]
        assert (await client.get("/sandbox/stats")).json()["created"] == 1
    assert not caplog.records


async def test_the_task_of_a_disconnected_client_continues(client: httpx.AsyncClient, subscriber: Subscriber) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/api/v1/task", json=body(subscriber, submit="hang"), timeout=0.2)
    assert await subscriber.statuses(3) == ["pending", "processing", "completed"]


async def test_the_sandbox_stops_with_tasks_and_notices_in_flight(subscriber: Subscriber) -> None:
    subscriber.answers.extend([500] * 10)
    async with sandbox(webhook_retry_seconds=3600.0) as client:
        await create(client, subscriber, duration=3600)
        await create(client, subscriber, webhook="late", late_seconds=3600)
        await subscriber.statuses(4)
