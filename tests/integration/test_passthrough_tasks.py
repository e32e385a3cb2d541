"""An answer that is passed on and is a task: from then on the client's organization has it, to its end."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import httpx
import orjson
import pytest

from receiver.domain.updates import ProviderUpdate
from receiver.providers.piapi import PiAPI
from tests.fakes.forward_provider import Exchange, ForwardProvider, fixed, forward_provider, in_parts
from tests.fakes.organizations import another_organization
from tests.fakes.world import API_KEY, FAST_POLLING, World, in_process

IMAGES = "/v1/images/generations"
TASK = {"task_id": "theirs-1", "model": "gpt-image-1", "task_type": "generate", "status": "pending", "input": {"a": 1}}
MADE = {"code": 200, "message": "success", "data": TASK}
DONE = {"code": 200, "data": {**TASK, "status": "completed", "output": {"image_url": "https://x.example/a.png"}}}


@pytest.fixture
async def provider() -> AsyncIterator[ForwardProvider]:
    async with forward_provider() as provider:
        yield provider


@pytest.fixture
async def world(tmp_path: Path, provider: ForwardProvider) -> AsyncIterator[World]:
    """A world with that provider, which is polled often."""
    async with in_process(tmp_path, piapi_base_url=provider.url, public=False, **FAST_POLLING) as world:
        yield world


async def tasks(world: World) -> list[dict[str, Any]]:
    return list((await world.api.get("/api/v1/tasks")).json()["data"]["data"])


async def test_an_answer_that_is_a_task_is_tracked_to_its_end(world: World, provider: ForwardProvider) -> None:
    async def answer(exchange: Exchange) -> None:
        await fixed(200, DONE if exchange.call.method == "GET" else MADE)(exchange)

    provider.answer = answer
    answered = await world.api.post(IMAGES, json={"prompt": "a cat"})
    assert (answered.status_code, answered.json()) == (200, MADE)
    task = await world.task("theirs-1")
    assert (task["model"], task["task_type"], task["input"]) == ("gpt-image-1", "generate", {"a": 1})
    ended = await world.ended(task["task_id"])
    assert (ended["status"], ended["output"]["image_url"]) == ("completed", "https://x.example/a.png")
    assert [call.path for call in provider.calls][:2] == [IMAGES, "/api/v1/task/theirs-1"]
    assert (await world.api.post(IMAGES, json={})).json() == MADE
    assert [each["task_id"] for each in await tasks(world)] == [task["task_id"]]


async def test_the_task_belongs_to_the_client_s_organization(world: World, provider: ForwardProvider) -> None:
    provider.answer = fixed(200, MADE)
    theirs = another_organization(world)
    answered = await world.api.post(IMAGES, json={}, headers=theirs)
    assert answered.json() == MADE
    assert (await world.api.get("/api/v1/tasks/theirs-1")).status_code == 404
    assert (await world.api.get("/api/v1/tasks/theirs-1", headers=theirs)).status_code == 200
    assert (await world.api.post(IMAGES, json={})).json() == MADE  # the same task, of another organization's
    assert await tasks(world) == []


@pytest.mark.parametrize(("text", "is_apart"), [("a", False), ("a" * 100_000, True)])
async def test_a_large_answer_is_looked_at_apart_from_the_event_loop(
    world: World,
    provider: ForwardProvider,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    is_apart: bool,
) -> None:
    threads: list[bool] = []
    task_in_answer = PiAPI.task_in_answer

    def looking(piapi: PiAPI, body: bytes) -> ProviderUpdate | None:
        threads.append(current_thread() is not main_thread())
        return task_in_answer(piapi, body)

    monkeypatch.setattr(PiAPI, "task_in_answer", looking)
    provider.answer = fixed(200, {"code": 200, "data": {**TASK, "input": {"a": text}}})
    assert (await world.api.post(IMAGES, json={})).status_code == 200
    assert (threads, (await world.task("theirs-1"))["input"]) == ([is_apart], {"a": text})


@pytest.mark.parametrize("size", [1, 7])
async def test_a_task_may_come_in_parts(world: World, provider: ForwardProvider, size: int) -> None:
    text = b'{"code": 0, "data": {"task_id": "theirs-2", "status": "processing"}}'
    provider.answer = in_parts([text[at : at + size] for at in range(0, len(text), size)])
    assert (await world.api.post(IMAGES, json={})).content == text
    assert (await world.task("theirs-2"))["provider_task_id"] == "theirs-2"


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_task_may_come_packed_though_it_was_not_asked_for(
    world: World, provider: ForwardProvider, encoding: str
) -> None:
    text = orjson.dumps(MADE)
    packed = gzip.compress(text) if encoding == "gzip" else text
    provider.answer = fixed(200, packed, content_encoding=encoding)
    async with world.api.stream("POST", IMAGES, json={}) as answer:
        assert b"".join([part async for part in answer.aiter_raw()]) == packed
        assert answer.headers["content-encoding"] == encoding
    assert (await world.task("theirs-1"))["provider_task_id"] == "theirs-1"


@pytest.mark.parametrize(
    "answer",
    [
        fixed(200, {"choices": [{"message": {"content": "task_id"}}]}),
        fixed(200, {"data": TASK}),
        fixed(200, {"task_id": "x", "status": "completed"}),
        fixed(200, {"code": 200, "data": {"url": "https://x.example/a.png"}}),
        fixed(200, {"code": 200, "data": {"task_id": ""}}),
        fixed(200, {"code": 200, "data": {"task_id": []}}),
        fixed(200, {"code": 200, "data": None}),
        fixed(200, [MADE]),
        fixed(200, b"not json"),
        fixed(200, b""),
        fixed(400, MADE),
        fixed(200, MADE, "text/plain"),
        fixed(200, b"packed", content_encoding="br"),
        fixed(200, {**MADE, "more": "x" * 300_000}),
    ],
)
async def test_any_other_answer_is_passed_on_and_not_tracked(
    world: World, provider: ForwardProvider, answer: Any
) -> None:
    provider.answer = answer
    answered = await world.api.post(IMAGES, json={})
    assert answered.status_code in (200, 400)
    assert await tasks(world) == []


async def test_a_task_is_tracked_though_the_client_disconnects_at_the_end_of_its_answer(
    world: World, provider: ForwardProvider
) -> None:
    provider.answer = fixed(200, MADE)
    async with (
        httpx.AsyncClient(base_url=world.base, headers={"x-api-key": API_KEY}) as client,
        client.stream("POST", IMAGES, json={}) as response,
    ):
        await anext(response.aiter_raw())
    async with asyncio.timeout(10):
        while not await tasks(world):
            pass
