"""Deliveries: the retry schedule, timeouts, what is stored and logged of each attempt, refused targets."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import LogCapture

from receiver.domain.keyring import KeyRing
from receiver.outbound import deliver
from tests.fakes.inbound import report
from tests.fakes.rows import ATTEMPTS, DELIVERIES, Rows, change, eventually, select
from tests.fakes.subscriber import Reply
from tests.fakes.world import World, as_told, in_process

BY_HAND = {"outcome": "never", "webhook": "lost"}
PICTURE = {"image_url": "https://example.com/i.png"}


def settled(rows: Rows) -> bool:
    return bool(rows) and all(row["settled_at"] for row in rows)


def gaps(attempts: Rows) -> list[float]:
    """Return the seconds from the end of each attempt to the start of the next."""
    starts = [datetime.fromisoformat(attempt["started_at"]) for attempt in attempts]
    return [
        (later - sooner).total_seconds() - attempt["duration_ms"] / 1000
        for sooner, later, attempt in zip(starts, starts[1:], attempts, strict=False)
    ]


async def test_a_delivery_that_is_accepted_at_once_has_one_attempt(world: World) -> None:
    await world.webhook()
    await world.created()
    (row,) = await eventually(world, DELIVERIES, settled)
    assert (row["status"], row["due_at"]) == ("delivered", None)
    (attempt,) = select(world, ATTEMPTS)
    assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, 200, None)
    assert attempt["response"] == "heard"
    assert 0 <= attempt["duration_ms"] < 5000


async def test_a_failed_delivery_is_retried_by_the_schedule_until_it_is_dead(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,0.2,0.5") as world:
        world.subscriber.answer = lambda number, _request: 499 + number
        await world.webhook()
        await world.created()
        (row,) = await eventually(world, DELIVERIES, settled)
        assert (row["status"], row["due_at"], row["attempt"]) == ("dead", None, 3)
        attempts = select(world, ATTEMPTS)
        assert [(attempt["number"], attempt["status_code"]) for attempt in attempts] == [(1, 500), (2, 501), (3, 502)]
        first, second = gaps(attempts)
        assert 0.2 * 0.8 - 0.01 <= first < 0.2 * 1.2 + 2
        assert 0.5 * 0.8 - 0.01 <= second < 0.5 * 1.2 + 2
        received = world.subscriber.received
        assert len({each.event_id for each in received}) == 1
        assert len({each.body for each in received}) == 1
        stamps = [int(each.headers["webhook-timestamp"]) for each in received]
        assert stamps == sorted(stamps)


async def test_only_the_first_4_kb_of_a_response_are_stored(world: World) -> None:
    world.subscriber.answer = lambda _number, _request: Response("é" * 5000, 200)
    await world.webhook()
    await world.created()
    (attempt,) = await eventually(world, ATTEMPTS, bool)
    assert attempt["response"] == "é" * 2048


async def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path: Path) -> None:
    redirects = [301, 302, 303, 307, 308]
    async with in_process(tmp_path, retry_schedule="0,0,0,0,0") as world:

        def answer(number: int, _request: Request) -> Reply:
            return Response("", redirects[number - 1], headers={"location": f"{world.subscriber.base}/elsewhere"})

        world.subscriber.answer = answer
        await world.webhook()
        await world.created()
        (row,) = await eventually(world, DELIVERIES, settled)
        assert row["status"] == "dead"
        attempts = select(world, ATTEMPTS)
        assert [attempt["status_code"] for attempt in attempts] == redirects
        assert {attempt["error"] for attempt in attempts} == {"redirects are not followed"}
        assert {received.path for received in world.subscriber.received} == {"/told"}


async def test_a_subscriber_s_retry_after_is_respected(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,0.1,0.1") as world:
        later = Response("busy", 429, headers={"retry-after": "1"})
        world.subscriber.answer = lambda number, _request: later if number == 1 else 200
        await world.webhook()
        await world.created()
        (row,) = await eventually(world, DELIVERIES, settled)
        assert (row["status"], row["attempt"]) == ("delivered", 2)
        (gap,) = gaps(select(world, ATTEMPTS))
        assert 0.98 <= gap < 5


async def test_a_response_that_is_too_slow_is_a_failure(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,0.1", delivery_timeout_seconds="1") as world:

        def answer(number: int, _request: Request) -> Any:
            return world.subscriber.hang() if number == 1 else 200

        world.subscriber.answer = answer
        await world.webhook()
        await world.created()
        (row,) = await eventually(world, DELIVERIES, settled)
        assert (row["status"], row["attempt"]) == ("delivered", 2)
        first = select(world, ATTEMPTS)[0]
        assert (first["status_code"], first["error"]) == (None, "timed out after 1 s")
        assert 990 <= first["duration_ms"] < 5000


async def test_a_refused_connection_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0") as world:
        await world.webhook(endpoint_url="http://127.0.0.1:9/told?token=planted-token")
        await world.created()
        (row,) = await eventually(world, DELIVERIES, settled)
        (attempt,) = select(world, ATTEMPTS)
        assert (row["status"], attempt["status_code"], attempt["error"]) == ("dead", None, "connection refused")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_a_target_that_became_private_after_registration_is_not_reached(tmp_path: Path, host: str) -> None:
    async with in_process(tmp_path, allow_private_targets="false", retry_schedule="0") as world:
        await world.webhook(endpoint_url="https://1.1.1.1/told")
        port = world.subscriber.base.rpartition(":")[2]
        for scheme, reason in (("http", "the URL must start with https://"), ("https", "is not public")):
            change(world, "UPDATE subscription SET endpoint_url = ?", f"{scheme}://{host}:{port}/{scheme}")
            await world.created()
            attempts = await eventually(world, ATTEMPTS, bool)
            assert attempts[0]["status_code"] is None
            assert attempts[0]["error"].startswith("address forbidden: ")
            assert attempts[0]["error"].endswith(reason)
            change(world, "DELETE FROM delivery_attempt")
        assert world.subscriber.received == []


async def test_only_subscribed_events_are_sent(world: World) -> None:
    await world.webhook(event_types=["task.created", "task.failed"])
    completed, failed = await world.created(), await world.created({"outcome": "failed"})
    for task_id in (completed, failed):
        await world.ended(task_id)
    await world.subscriber.until(lambda received: len(received) >= 3)
    told = sorted((received.json["type"], received.json["data"]["task_id"]) for received in world.subscriber.received)
    assert told == sorted([("task.created", completed), ("task.created", failed), ("task.failed", failed)])


async def test_a_client_s_own_callback_gets_only_its_tasks_events_in_piapi_s_form(world: World) -> None:
    config = {"webhook_config": {"endpoint": world.subscriber.url, "secret": "mine"}}
    task_id = await world.created(config=config)
    other = await world.created()
    await world.ended(other)
    await world.subscriber.until(lambda received: any(each.json["data"]["status"] == "completed" for each in received))
    assert {received.json["data"]["task_id"] for received in world.subscriber.received} == {task_id}
    assert {received.headers["x-webhook-secret"] for received in world.subscriber.received} == {"mine"}
    last = world.subscriber.received[-1].json
    assert last.keys() == {"timestamp", "data"}
    assert last["data"] == (await world.api.get(f"/api/v1/task/{task_id}")).json()["data"]
    assert last["data"]["config"]["webhook_config"] == {"endpoint": world.subscriber.url, "secret": ""}


async def test_a_callback_without_a_secret_is_sent_none(world: World) -> None:
    await world.created(config={"webhook_config": {"endpoint": world.subscriber.url}})
    await world.subscriber.until(lambda received: received)
    assert "x-webhook-secret" not in world.subscriber.received[0].headers


async def test_every_attempt_sends_the_same_body(tmp_path: Path) -> None:
    async with held_back(tmp_path) as (world, gate):
        config = {"webhook_config": {"endpoint": f"{world.subscriber.base}/callback", "secret": "mine"}}
        for form in ("standard", "pi"):
            await world.webhook(endpoint_url=f"{world.subscriber.base}/{form}", format=form, event_types=["task.*"])
        task_id = await world.created(BY_HAND, config=config)
        usage = {"usage": {"type": "point", "frozen": 5, "consume": 0}}
        await report(world, task_id, "processing", output={"percent": 40}, meta=usage, detail={"step": 1})
        await world.subscriber.until(lambda received: len(received) >= 8)
        first = {(received.path, received.event_id): received.json for received in world.subscriber.received}
        usage = {"usage": {"type": "point", "frozen": 0, "consume": 5}}
        await report(world, task_id, "failed", error={"code": 1, "message": "no"}, meta=usage, detail={"step": 2})
        await report(world, task_id, "completed", output=PICTURE, meta=usage, detail={"step": 3})
        gate.set()
        await world.subscriber.until(
            lambda _: {(h.path, h.event_id) for h in world.subscriber.accepted} >= first.keys()
        )
        for received in world.subscriber.accepted:
            assert first.get((received.path, received.event_id), received.json) == received.json


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
async def test_the_event_of_a_task_s_end_has_its_final_state(world: World, outcome: str) -> None:
    await world.webhook()
    task_id = await world.created(BY_HAND)
    await report(world, task_id, "processing", output={"percent": 40}, meta={"started_at": "2026-01-01T00:00:00Z"})
    await report(world, task_id, outcome, output=PICTURE if outcome == "completed" else None)
    await world.subscriber.until(lambda received: received)
    assert world.subscriber.received[0].json["data"] == as_told(await world.task(task_id))


async def test_the_event_of_an_end_that_ringback_decides_has_the_final_state(tmp_path: Path) -> None:
    async with in_process(tmp_path, task_timeout_seconds="0.5", poll_first_seconds="0.2") as world:
        await world.webhook()
        await world.provider_options(poll_status=503)
        task = await world.ended(await world.created(BY_HAND))
        assert (task["status"], task["error"]["code"]) == ("failed", "timed_out")
        await world.subscriber.until(lambda received: received)
        assert world.subscriber.received[0].json["data"] == as_told(task)


async def test_a_webhook_whose_secret_cannot_be_read_delays_no_other(world: World) -> None:
    broken = await world.webhook(endpoint_url=f"{world.subscriber.base}/broken")
    await world.webhook()
    gone = KeyRing(["a master key that is gone"]).encrypt("whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0")
    change(world, "UPDATE subscription SET secret = ? WHERE uid = ?", gone, broken["id"])
    for _ in range(3):
        await world.created()
    await world.subscriber.until(lambda received: len(received) >= 3, seconds=10)
    assert {received.path for received in world.subscriber.received} == {"/told"}


@asynccontextmanager
async def held_back(folder: Path) -> AsyncIterator[tuple[World, asyncio.Event]]:
    """Run a world whose subscriber accepts nothing until the gate is open."""
    gate = asyncio.Event()

    def answer(_number: int, _request: Request) -> Reply:
        return 200 if gate.is_set() else 503

    schedule = ",".join(["0", *["0.2"] * 50])
    async with in_process(folder, retry_schedule=schedule) as world:
        world.subscriber.answer = answer
        yield world, gate


class Records:
    """The log records of `receiver.outbound.deliver`, from a level up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, level: int) -> None:
        self._captured = LogCapture()
        log = structlog.wrap_logger(
            None, processors=[self._captured], wrapper_class=structlog.make_filtering_bound_logger(level)
        )
        monkeypatch.setattr(deliver, "log", log)

    def all(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._captured.entries]


async def test_at_debug_each_attempt_is_one_record_with_the_ids_of_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(monkeypatch, logging.DEBUG)
    async with in_process(tmp_path, retry_schedule="0,0.05") as world:
        world.subscriber.answer = lambda number, _request: 500 if number == 1 else 200
        webhook = await world.webhook()
        task_id = await world.created()
        await eventually(world, DELIVERIES, settled)
        (delivery,) = (await world.api.get("/api/v1/deliveries")).json()["data"]["data"]
    failed, succeeded = records.all()
    ids = {"delivery_id": delivery["id"], "event_id": delivery["event_id"], "webhook_id": webhook["id"]}
    for record, number, status in ((failed, 1, 500), (succeeded, 2, 200)):
        assert record.items() >= {**ids, "task_id": task_id, "attempt": number, "status_code": status}.items()
        assert record["error"] is None
        assert 0 <= record["duration_ms"] < 5000
    assert (failed["log_level"], failed["event"]) == ("debug", "delivery attempt failed")
    assert datetime.fromisoformat(failed["next_attempt_at"]) > datetime.fromisoformat(delivery["created_at"])
    assert (succeeded["log_level"], succeeded["event"]) == ("debug", "delivery attempt succeeded")
    assert succeeded["next_attempt_at"] is None


async def test_at_info_only_deliveries_that_are_given_up_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(monkeypatch, logging.INFO)
    async with in_process(tmp_path, retry_schedule="0") as world:
        await world.webhook()
        await world.created()
        await eventually(world, DELIVERIES, settled)
        assert records.all() == []
        world.subscriber.answer = lambda _number, _request: 410
        await world.created()
        await eventually(world, DELIVERIES, lambda rows: len(rows) == 2 and settled(rows))
    (record,) = records.all()
    assert (record["log_level"], record["event"], record["status_code"]) == ("warning", "delivery dead", 410)


async def test_a_client_s_own_callback_has_no_webhook_id_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(monkeypatch, logging.DEBUG)
    async with in_process(tmp_path) as world:
        task_id = await world.created(config={"webhook_config": {"endpoint": world.subscriber.url}})
        await world.ended(task_id)
        await eventually(world, DELIVERIES, settled)
        deliveries = (await world.api.get("/api/v1/deliveries")).json()["data"]["data"]
    assert {record["delivery_id"] for record in records.all()} == {delivery["id"] for delivery in deliveries}
    assert {(record["webhook_id"], record["task_id"]) for record in records.all()} == {(None, task_id)}
