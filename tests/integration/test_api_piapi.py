"""PiAPI's endpoints: a PiAPI client needs only another base URL (`receiver/providers/piapi/CONTRACT.md`)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import is_id, new_id
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

LASTING = {"pending_seconds": 60.0}
"""A task that stays pending."""
RUNNING = {"outcome": "never"}
GOOD = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}
BAD_CREATES: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"task_type": "t", "input": {}}, "model"),
    "an empty model": ({**GOOD, "model": " "}, "model"),
    "a model that is no text": ({**GOOD, "model": 5}, "model"),
    "a model too long": ({**GOOD, "model": "m" * 201}, "model"),
    "no task_type": ({"model": "m", "input": {}}, "task_type"),
    "no input": ({"model": "m", "task_type": "t"}, "input"),
    "input a text": ({**GOOD, "input": '{"prompt": "a cat"}'}, "input"),
    "input a list": ({**GOOD, "input": []}, "input"),
    "input null": ({**GOOD, "input": None}, "input"),
    "input too deep": ({**GOOD, "input": json.loads('{"a":' * 300 + "1" + "}" * 300)}, "input"),
    "config a text": ({**GOOD, "config": "x"}, "config"),
    "config too deep": ({**GOOD, "config": json.loads('{"a":' * 300 + "1" + "}" * 300)}, "config"),
    "webhook_config a text": ({**GOOD, "config": {"webhook_config": "x"}}, "config.webhook_config"),
    "endpoint a number": ({**GOOD, "config": {"webhook_config": {"endpoint": 5}}}, "config.webhook_config.endpoint"),
    "endpoint no URL": (
        {**GOOD, "config": {"webhook_config": {"endpoint": "ftp://x"}}},
        "config.webhook_config.endpoint",
    ),
    "secret a number": (
        {**GOOD, "config": {"webhook_config": {"endpoint": "https://1.1.1.1/", "secret": 5}}},
        "config.webhook_config.secret",
    ),
    "metadata a list": ({**GOOD, "metadata": []}, "metadata"),
    "metadata too large": ({**GOOD, "metadata": {"a": "x" * 20_000}}, "metadata"),
    "too many attempts": ({**GOOD, "retry": {"max_attempts": 6}}, "retry.max_attempts"),
    "an unknown retry": ({**GOOD, "retry": {"tries": 1}}, "retry.tries"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test looks only at its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


async def creates_at_the_provider(world: World) -> int:
    return int((await world.provider_stats())["requests"].get("POST /api/v1/task", 0))


async def provider_id_of(world: World, task_id: str) -> str:
    return str((await world.task(task_id))["provider_task_id"])


async def test_a_created_task_has_ringback_s_id_and_also_the_provider_s(world: World) -> None:
    answer = await world.create(LASTING, config={"service_mode": "private"}, metadata={"order": "7"})
    assert answer.status_code == 200
    assert answer.json() == {"code": 200, "message": "success", "data": answer.json()["data"]}
    task = answer.json()["data"]
    assert is_id(task["task_id"])
    assert task["status"] == "pending"
    assert (task["model"], task["task_type"]) == ("Qubico/flux1-schnell", "txt2img")
    assert task["meta"]["provider_task_id"] not in (None, task["task_id"])
    assert (task["meta"]["started_at"], task["meta"]["ended_at"]) == ("0001-01-01T00:00:00Z",) * 2
    assert task["config"] == {"service_mode": "private", "webhook_config": {"endpoint": "", "secret": ""}}
    assert task["error"] == {"code": 0, "raw_message": "", "message": "", "detail": None}


@pytest.mark.parametrize(("body", "field"), BAD_CREATES.values(), ids=BAD_CREATES.keys())
async def test_a_bad_create_is_refused_by_its_field_and_the_provider_is_not_called(
    world: World, body: dict[str, Any], field: str
) -> None:
    before = await creates_at_the_provider(world)
    answer = await world.api.post("/api/v1/task", json=body)
    assert answer.status_code == 400, answer.text
    assert (answer.json()["code"], answer.json()["data"]) == (400, None)
    assert answer.json()["message"].startswith(f"{field}:")
    assert await creates_at_the_provider(world) == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model": NaN}'])
async def test_a_create_that_is_not_a_json_object_is_refused(world: World, body: bytes) -> None:
    answer = await world.api.post("/api/v1/task", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


async def test_a_create_that_is_too_large_is_refused(world: World) -> None:
    answer = await world.create(input={"prompt": "x" * 1024 * 1024})
    assert (answer.status_code, answer.json()["code"]) == (413, 413)


async def test_the_provider_s_refusal_is_passed_on_unchanged(world: World) -> None:
    answer = await world.create({"submit": "refuse", "key": "refuse"})
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert answer.json()["message"] == "invalid request: the prompt was refused"
    newest = (await world.api.get("/api/v1/tasks", params={"limit": 1})).json()["data"]["data"][0]
    assert (newest["status"], newest["error"]["code"]) == ("failed", 400)


async def test_a_task_that_the_provider_cannot_accept_yet_is_returned_as_pending(world: World) -> None:
    answer = await world.create({"submit": "unavailable", "key": new_id()})
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "pending")
    assert (await world.ended(answer.json()["data"]["task_id"]))["status"] == "completed"


async def test_the_long_poll_wakes_when_the_task_ends(world: World) -> None:
    task_id = await world.created({"duration": 0.4})
    begun = time.monotonic()
    answer = await world.api.get(f"/api/v1/task/{task_id}?wait_for_completion=true&timeout_seconds=30")
    assert answer.json()["data"]["status"] == "completed"
    assert answer.json()["data"]["output"]["image_url"]
    assert time.monotonic() - begun < 15  # and not only at the end of the 30 seconds


async def test_the_long_poll_returns_the_present_state_after_its_timeout(world: World) -> None:
    task_id = await world.created(LASTING)
    begun = time.monotonic()
    answer = await world.api.get(f"/api/v1/task/{task_id}?wait_for_completion=true&timeout_seconds=1")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "pending")
    assert 1 <= time.monotonic() - begun < 15  # and not 20 seconds, the default


@pytest.mark.parametrize("seconds", ["0", "31", "x", "-1", "nan"])
async def test_the_long_poll_s_timeout_is_1_to_30_seconds(world: World, seconds: str) -> None:
    task_id = await world.created(LASTING)
    answer = await world.api.get(f"/api/v1/task/{task_id}?wait_for_completion=true&timeout_seconds={seconds}")
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("timeout_seconds:")


@pytest.mark.parametrize(
    "task_id",
    [new_id(), "no-such-task", "%00", "a" * 300, "%C3%A9"],
    ids=["an id", "no id", "a NUL", "long", "not ASCII"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "{}"), ("DELETE", "{}"), ("POST", "{}/cancel")])
async def test_an_unknown_task_is_a_404_in_piapi_s_form(world: World, method: str, path: str, task_id: str) -> None:
    answer = await world.api.request(method, httpx.URL(f"{world.base}/api/v1/task/{path.format(task_id)}"))
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (404, 404, None)
    assert answer.json()["message"].startswith("task_id:")


async def test_the_provider_s_id_works_in_every_path_with_a_task_id(world: World) -> None:
    task_id = await world.created(LASTING)
    provider_id = await provider_id_of(world, task_id)
    native = f"/api/v1/tasks/{provider_id}"
    for method, path in [("GET", f"/api/v1/task/{provider_id}"), ("GET", native), ("POST", f"{native}/refresh")]:
        answer = await world.api.request(method, path)
        assert answer.json()["data"]["task_id"] == task_id
    events = (await world.api.get(f"{native}/events")).json()["data"]["data"]
    assert {event["task_id"] for event in events} == {task_id}
    assert (await world.api.delete(f"/api/v1/task/{provider_id}")).json()["data"]["status"] == "cancelled"


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/api/v1/task/{}"), ("POST", "/api/v1/task/{}/cancel")])
async def test_a_pending_task_can_be_cancelled(world: World, method: str, path: str) -> None:
    task_id = await world.created(LASTING)
    answer = await world.api.request(method, path.format(task_id))
    assert (answer.status_code, answer.json()["code"]) == (200, 200)
    assert answer.json()["data"]["status"] == "cancelled"
    assert (await world.events(task_id))[-1]["type"] == "task.cancelled"
    (raw,) = [
        each
        for each in (await world.provider.get("/sandbox/tasks")).json()["tasks"]
        if each["endpoint"].endswith(task_id)
    ]
    assert raw["status"] == "cancelled"


async def test_cancelling_a_processing_task_is_refused_with_the_provider_s_message(world: World) -> None:
    task_id = await world.created(RUNNING)
    await status_is(world, task_id, "processing")
    answer = await world.api.delete(f"/api/v1/task/{task_id}")
    message = "only a pending task can be cancelled; this task is processing"
    assert (answer.status_code, answer.json()) == (400, {"code": 400, "message": message})
    assert (await world.task(task_id))["status"] == "processing"


async def test_a_task_that_has_ended_cannot_be_cancelled(world: World) -> None:
    task_id = await world.created()
    await world.ended(task_id)
    answer = await world.api.delete(f"/api/v1/task/{task_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, 409)
    assert "completed" in answer.json()["message"]


async def test_a_task_that_was_not_sent_yet_is_cancelled_without_the_provider(world: World) -> None:
    task_id = await world.created({"submit": "unavailable", "submit_failures": 1000, "key": new_id()})
    answer = await world.api.delete(f"/api/v1/task/{task_id}")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "cancelled")
    assert (await world.events(task_id))[-1]["type"] == "task.cancelled"
    raw = (await world.provider.get("/sandbox/tasks")).json()["tasks"]
    assert not [task for task in raw if task["endpoint"].endswith(task_id)]


async def test_many_are_cancelled_at_once_by_model_and_age(world: World) -> None:
    mine = [await world.created(LASTING, model="suno") for _ in range(3)]
    other = await world.created(LASTING, model="luma")
    soon = int(time.time()) + 5
    answer = await world.api.delete("/api/v1/tasks", params={"created_before": soon, "model": "suno"})
    assert (answer.status_code, answer.json()["code"]) == (200, 200)
    assert set(answer.json()["data"]["cancelled"]) == set(mine)
    assert (await world.task(other))["status"] == "pending"
    earlier = await world.api.delete("/api/v1/tasks", params={"created_before": soon - 3600, "model": "all"})
    assert earlier.json()["data"]["cancelled"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"model": "all"}, "created_before"),
        ({"created_before": "1"}, "model"),
        ({"created_before": "x", "model": "all"}, "created_before"),
    ],
)
async def test_cancelling_many_needs_both_parameters(world: World, query: dict[str, str], field: str) -> None:
    answer = await world.api.delete("/api/v1/tasks", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert answer.json()["message"].startswith(f"{field}:")


async def test_active_tasks_are_counted_by_model(world: World) -> None:
    for _ in range(2):
        await world.created(LASTING, model="midjourney")
    await status_is(world, await world.created(RUNNING, model="midjourney"), "processing")
    counts = (await world.api.get("/account/active_tasks")).json()["data"]["midjourney"]
    assert counts == {"staged_count": 0, "pending_count": 2, "processing_count": 1, "active_tasks": 3}


async def test_account_info_is_the_provider_s_own(world: World) -> None:
    answer = await world.api.get("/account/info")
    assert (answer.status_code, answer.json()["code"]) == (200, 200)
    assert answer.json()["data"]["plan"] == "sandbox"


async def test_the_history_is_paged_newest_first(world: World) -> None:
    begun = int(time.time())
    mine = [await world.created(LASTING, model="history") for _ in range(5)]
    query: dict[str, Any] = {"model": "history", "page_size": 2, "start_time": begun - 1}
    pages = [
        (await world.api.get("/api/open/tasks/histories", params={**query, "page": n})).json() for n in (1, 2, 3, 4)
    ]
    assert [task["task_id"] for page in pages for task in page["data"]["list"]] == mine[::-1]
    assert {page["data"]["total"] for page in pages} == {5}


@pytest.mark.parametrize("query", ["page_size=101", "page_size=0", "page=0", "page=x", "start_time=yesterday"])
async def test_a_bad_history_query_is_refused(world: World, query: str) -> None:
    answer = await world.api.get(f"/api/open/tasks/histories?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert answer.json()["message"].startswith(query.partition("=")[0])


async def status_is(world: World, task_id: str, status: str) -> None:
    """Wait until the task is in this state. Raises TimeoutError."""
    async with asyncio.timeout(10):
        while (await world.task(task_id))["status"] != status:
            pass
