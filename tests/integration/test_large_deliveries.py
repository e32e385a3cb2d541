"""Deliveries about large tasks: read and built one by one, apart from the event loop, within a bound on their bytes."""

import asyncio
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from receiver.body_budget import BodyBudget
from receiver.errors import Unavailable
from receiver.outbound.message import Message, MessageBuilder
from receiver.storage.database import Database
from receiver.storage.deliveries import TO_SEND
from tests.fakes.rows import DELIVERIES, eventually, select
from tests.fakes.world import World, in_process

SILENT = {"outcome": "never", "webhook": "lost"}
LARGE = "x" * 300_000
LITTLE_ROOM = "1048576"
"""For the deliveries half of it, which one large message and its copy fill."""


async def webhooks(world: World, number: int) -> None:
    for each in range(number):
        await world.webhook(endpoint_url=f"{world.subscriber.base}/told/{each}", event_types=["task.created"])


def settled(rows: list[dict[str, Any]]) -> bool:
    return bool(rows) and all(row["settled_at"] for row in rows)


@pytest.mark.parametrize(("prompt", "is_apart"), [("a cat", False), (LARGE, True)])
async def test_the_message_about_a_large_task_is_built_and_signed_apart_from_the_event_loop(
    world: World, monkeypatch: pytest.MonkeyPatch, prompt: str, is_apart: bool
) -> None:
    threads: list[bool] = []
    build, headers = MessageBuilder.build_delivery, Message.headers

    def building(*given: Any) -> Message:
        threads.append(current_thread() is not main_thread())
        return build(*given)

    def signing(*given: Any) -> dict[str, str]:
        threads.append(current_thread() is not main_thread())
        return headers(*given)

    monkeypatch.setattr(MessageBuilder, "build_delivery", building)
    monkeypatch.setattr(Message, "headers", signing)
    await webhooks(world, 2)
    await world.created(SILENT, input={"prompt": prompt})
    await world.subscriber.until(lambda received: len(received) == 2)
    assert {received.json["data"]["input"]["prompt"] for received in world.subscriber.received} == {prompt}
    assert threads == [is_apart] * 4


async def test_large_deliveries_wait_for_room_and_small_ones_do_not(tmp_path: Path) -> None:
    async with in_process(tmp_path, bodies_in_flight_bytes=LITTLE_ROOM) as world:
        gate, in_flight, most = asyncio.Event(), 0, 0

        async def answer(_number: int, request: Request) -> int:
            nonlocal in_flight, most
            if len(await request.body()) > len(LARGE):
                in_flight += 1
                most = max(most, in_flight)
                await gate.wait()
                in_flight -= 1
            return 200

        world.subscriber.answer = answer
        await webhooks(world, 3)
        await world.created(SILENT, input={"prompt": LARGE})
        small = await world.created(SILENT)
        await world.subscriber.until(lambda received: len(world.subscriber.of(small)) == 3)
        gate.set()
        await eventually(world, DELIVERIES, lambda rows: len(rows) == 6 and settled(rows))
        assert (most, len(world.subscriber.accepted)) == (1, 6)


async def test_a_large_delivery_without_room_is_given_back_and_its_attempt_does_not_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    take = BodyBudget.take

    async def full_at_first(budget: BodyBudget, owner: int, size: int) -> None:
        if size > 2 * len(LARGE) and not refused:  # no request's
            refused.append(size)
            raise Unavailable("full")
        await take(budget, owner, size)

    monkeypatch.setattr(BodyBudget, "take", full_at_first)
    await webhooks(world, 1)
    with capture_logs() as records:
        await world.created(SILENT, input={"prompt": LARGE})
        await eventually(world, DELIVERIES, settled)
    assert [(row["status"], row["attempt"]) for row in select(world, DELIVERIES)] == [("delivered", 1)]
    assert len(refused) == 1
    assert [record["error"] for record in records if record["event"] == "delivery not sent"] == [
        "too many bytes of deliveries are held at the moment: it is sent later"
    ]


async def test_a_large_row_is_read_as_a_small_one_is(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        await webhooks(world, 1)
        await world.created(SILENT, metadata={"number": "1"}, input={"prompt": "\u00fc\U0001f600", "n": [1, 1.5, None]})
        await eventually(world, DELIVERIES, settled)
        async with await Database.open(world.settings) as database:
            rows = [await read(TO_SEND, [1]) for read in (database.read_by_keys, database.read_large_by_keys)]
    assert rows[0] == rows[1]
    assert rows[0][0]["task"]["input"]["prompt"] == "\u00fc\U0001f600"
