"""Requests of public clients of PiAPI, recorded from the clients themselves, and what these read from the answers.

`python -m tests.clients` drives the clients; here their requests are sent again, so that no package is needed.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from tests.clients import recorded
from tests.clients.driving import value_at
from tests.clients.reads import READS
from tests.fakes.world import API_KEY, World

AT_ONCE = {"llm", "llm --stream", "llm --json-mode", "upload", "upload by hand", "chat image", "chat edit"}
"""Operations without a task."""
FAILING = {"result of an unknown task", "run that fails", "a task that fails"}
DEPENDENT = re.compile(r"\{task of ([^}]+)\}")
CLIENTS = sorted(READS)


class Replay:
    """Sends recorded requests to a service, each after what it depends on. `answers` are the last of each operation."""

    def __init__(self, world: World, http: httpx.AsyncClient, client: str) -> None:
        self.recording = recorded.read(client)
        self.answers: dict[str, httpx.Response] = {}
        self._world = world
        self._http = http
        self._values = {"key": API_KEY, "base": world.base, "subscriber": world.subscriber.base}

    async def run(self, operations: set[str]) -> None:
        """Run operations at once, but those that name the task of another operation after the others."""
        waiting = {operation for operation in operations if self._others(operation)}
        for group in (operations - waiting, waiting):
            await asyncio.gather(*map(self._operation, group))

    async def _operation(self, operation: str) -> None:
        for request in self.recording[operation]:
            answer = await self._send(recorded.filled(request, self._values))
            self.answers[operation] = answer
            if request["method"] == "POST" and request["path"] == "/api/v1/task":
                assert answer.status_code == 200, f"{operation}: {answer.text}"
                self._values[f"task of {operation}"] = answer.json()["data"]["task_id"]

    async def _send(self, request: dict[str, Any]) -> httpx.Response:
        task_id = request["path"].removeprefix("/api/v1/task/")
        if request["method"] == "GET" and task_id in self._values.values():
            # A client looks again until the end; here only its last look is sent.
            await self._world.ended(task_id)
        body = request["body"]
        content = body.encode() if isinstance(body, str) else orjson.dumps(body)
        return await self._http.request(request["method"], request["path"], headers=request["headers"], content=content)

    def _others(self, operation: str) -> set[str]:
        named = set(DEPENDENT.findall(orjson.dumps(self.recording[operation]).decode()))
        return named - {operation}


@asynccontextmanager
async def replaying(world: World, client: str) -> AsyncIterator[Replay]:
    async with httpx.AsyncClient(base_url=world.base, timeout=40, trust_env=False) as http:
        yield Replay(world, http, client)


def unread(answer: httpx.Response, paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if not value_at(answer.json(), path)]


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_finds_what_it_reads_of_every_task(world: World, client: str) -> None:
    async with replaying(world, client) as replay:
        await replay.run(set(replay.recording) - AT_ONCE - FAILING)
    assert {name for name in READS[client] if name not in AT_ONCE} <= replay.answers.keys()
    for operation, answer in replay.answers.items():
        assert (answer.status_code, answer.json()["code"]) == (200, 200), f"{operation}: {answer.text}"
        assert unread(answer, READS[client].get(operation, ())) == [], f"{operation}: {answer.text}"
        if answer.request.method == "GET":
            # Two of the clients compare the word as it is, in lower case.
            assert answer.json()["data"]["status"] == "completed", operation


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_is_told_that_a_task_failed_and_why(world: World, client: str) -> None:
    await world.provider_options(outcome="failed")
    async with replaying(world, client) as replay:
        operation = next(name for name in replay.recording if name not in AT_ONCE | FAILING | {"submit"})
        await replay.run({operation})
    answer = replay.answers[operation].json()
    assert (answer["code"], answer["data"]["status"]) == (200, "failed")
    assert answer["data"]["error"]["message"] == "task failed"


async def test_a_client_is_shown_the_words_of_an_error(world: World) -> None:
    async with replaying(world, "piapi-skills") as replay:
        await replay.run({"result of an unknown task"})
    answer = replay.answers["result of an unknown task"]
    assert answer.status_code == 404
    assert answer.json()["code"] != 200
    assert answer.json()["message"]


async def test_a_client_s_own_callback_has_its_own_secret(world: World) -> None:
    async with replaying(world, "piapi-skills") as replay:
        await replay.run({"callback"})
    task_id = replay.answers["callback"].json()["data"]["task_id"]
    await world.subscriber.until(lambda _: world.subscriber.of(task_id))
    [create] = replay.recording["callback"]
    secret = create["body"]["config"]["webhook_config"]["secret"]
    assert {each.headers["x-webhook-secret"] for each in world.subscriber.of(task_id)} == {secret}


def pictures(output: dict[str, Any]) -> list[str]:
    """Return what the official MCP server lists: the one URL and both lists, of which either may be null."""
    one = [output["image_url"]] if output.get("image_url") else []
    return [*one, *(output.get("image_urls") or []), *(output.get("temporary_image_urls") or [])]


async def test_the_mcp_server_lists_each_picture_once(world: World) -> None:
    images = {"image_faceswap", "generate_image", "midjourney_imagine"}
    async with replaying(world, "piapi-mcp-server") as replay:
        await replay.run(images)
    for operation in images:
        listed = pictures(replay.answers[operation].json()["data"]["output"])
        assert len(listed) == (5 if operation == "midjourney_imagine" else 1), operation
        assert len(set(listed)) == len(listed), operation


@pytest.mark.parametrize("client", ["piapi-skills", "n8n-nodes-piapi"])
async def test_a_client_gets_the_answers_that_need_no_task(world: World, client: str) -> None:
    async with replaying(world, client) as replay:
        await replay.run(AT_ONCE & set(replay.recording))
    for operation, answer in replay.answers.items():
        assert answer.status_code == 200, f"{operation}: {answer.text}"
        if answer.headers["content-type"].startswith("text/event-stream"):
            assert "You said" in content_of(answer.text) or "![image](http" in content_of(answer.text), operation
        else:
            assert unread(answer, READS[client][operation]) == [], f"{operation}: {answer.text}"


def content_of(stream: str) -> str:
    """Put the text of a stream of chat chunks together, as both clients do; the stream must have an end."""
    lines = [line.removeprefix("data: ") for line in stream.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    choices = [orjson.loads(line)["choices"] for line in lines[:-1]]
    return "".join(each[0]["delta"].get("content", "") for each in choices if each)
