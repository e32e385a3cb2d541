"""PiAPI's endpoints: a PiAPI client needs only another base URL (`receiver/providers/piapi/CONTRACT.md`)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
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
    answer = await world.create(input={"prompt": "x" * 16 * 1024 * 1024})
    assert (answer.status_code, answer.json()["code"]) == (413, 413)
    assert "RINGBACK_MAX_REQUEST_BYTES" in answer.json()["message"]


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


async def test_cancelling_the_tasks_of_an_unknown_model_is_refused_and_names_the_families(world: World) -> None:
    task_id = await world.created(LASTING, model="a-model-of-mine")
    query = {"created_before": str(int(time.time()) + 5), "model": "nonsense"}
    answer = await world.api.delete("/api/v1/tasks", params=query)
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (400, 400, None)
    for name in ("model", "all", "kling", "midjourney", "suno", "luma"):
        assert name in answer.json()["message"]
    assert (await world.task(task_id))["status"] == "pending"
    mine = await world.api.delete("/api/v1/tasks", params={**query, "model": "A-Model-Of-Mine"})
    assert mine.json()["data"]["cancelled"] == [task_id]


@pytest.mark.parametrize("family", ["flux", "FLUX"])
async def test_many_are_cancelled_at_once_by_family(world: World, family: str) -> None:
    mine = [await world.created(LASTING, model=f"Qubico/flux1-{name}") for name in ("dev", "schnell", "dev-advanced")]
    query = {"created_before": str(int((time.time() + 5) * 1000)), "model": family}
    answer = await world.api.delete("/api/v1/tasks", params=query)
    assert set(answer.json()["data"]["cancelled"]) >= set(mine)
    none = await world.api.delete("/api/v1/tasks", params={**query, "model": "trellis"})
    assert (none.status_code, none.json()["data"]["cancelled"]) == (200, [])


async def test_active_tasks_are_listed_by_family_with_their_numbers(world: World) -> None:
    pending = [await world.created(LASTING, model="midjourney") for _ in range(2)]
    running = await world.created(RUNNING, model="midjourney")
    await status_is(world, running, "processing")
    data = (await world.api.get("/account/active_tasks")).json()["data"]
    active = data["midjourney"]
    listed = active.pop("active_tasks")
    assert active == {"staged_count": 0, "pending_count": 2, "processing_count": 1}
    assert [(task["task_id"], task["status"]) for task in listed] == [
        (running, "processing"),
        (pending[1], "pending"),
        (pending[0], "pending"),
    ]
    assert {task["model"] for task in listed} == {"midjourney"}
    assert listed[0].keys() >= {"task_type", "meta"}
    assert data["music-u"] == {"staged_count": 0, "pending_count": 0, "processing_count": 0, "active_tasks": []}


async def test_models_of_one_family_are_active_under_one_key(world: World) -> None:
    created = [await world.created(LASTING, model=model) for model in ("veo3", "veo3.1", "google/Veo3-fast")]
    of_no_family = await world.created(LASTING, model="acme/painter")
    data = (await world.api.get("/account/active_tasks")).json()["data"]
    assert [task["task_id"] for task in data["veo"]["active_tasks"]] == created[::-1]
    assert data["veo"]["pending_count"] == 3
    assert [task["task_id"] for task in data["acme/painter"]["active_tasks"]] == [of_no_family]


async def test_a_long_list_of_active_tasks_is_cut_and_its_number_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.api.piapi.MOST_ACTIVE_LISTED", 2)
    created = [await world.created(LASTING, model=model) for model in ("sora2", "sora2-pro", "sora2")]
    active = (await world.api.get("/account/active_tasks")).json()["data"]["sora"]
    assert active["pending_count"] == 3
    assert [task["task_id"] for task in active["active_tasks"]] == created[:0:-1]


async def test_account_info_is_the_provider_s_own(world: World) -> None:
    answer = await world.api.get("/account/info")
    theirs = await world.provider.get("/account/info")
    assert (answer.status_code, answer.json()) == (theirs.status_code, theirs.json())
    assert "x-request-id" in answer.headers


async def test_the_history_is_paged_newest_first(world: World) -> None:
    begun = int(time.time())
    mine = [await world.created(LASTING, model="history") for _ in range(5)]
    query: dict[str, Any] = {"model": "history", "page_size": 2, "start_time": begun - 1}
    pages = [
        (await world.api.get("/api/open/tasks/histories", params={**query, "page": n})).json()["data"]
        for n in (1, 2, 3, 4)
    ]
    for name in ("data", "list"):
        assert [task["task_id"] for page in pages for task in page[name]] == mine[::-1]
    assert [(page["page"], page["size"], page["total"]) for page in pages] == [(n, 2, 5) for n in (1, 2, 3, 4)]


async def listed(world: World, **query: Any) -> list[str]:
    answer = await world.api.get("/api/open/tasks/histories", params=query)
    assert answer.status_code == 200, answer.text
    return [task["task_id"] for task in answer.json()["data"]["data"]]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("Qubico/hunyuan", ["hunyuan", "HUNYUAN", " hunyuan ", "Qubico/hunyuan", "qubico/HUNYUAN"]),
        ("music-u", ["music-u", "udio"]),
        ("music-s", ["music-s", "suno", "Suno"]),
        ("kling-turbo", ["kling", "kling-turbo", "Kling-Turbo"]),
        ("Qubico/image-toolkit", ["image_toolkit", "image-toolkit"]),
        ("Wan", ["wan", "Wan"]),
        ("of-no-family", ["of-no-family", "OF-NO-family"]),
    ],
)
async def test_the_history_filters_by_family_or_model_in_any_case(world: World, model: str, names: list[str]) -> None:
    task_id = await world.created(LASTING, model=model)
    for name in names:
        assert (await listed(world, model=name))[0] == task_id, name
    for everything in ("all", "ALL", ""):
        assert (await listed(world, model=everything))[0] == task_id
    assert task_id not in await listed(world, model="skyreels")
    assert await listed(world, model="no-such-model") == []


async def test_the_tasks_of_several_models_are_one_list_in_the_order_of_their_creation(world: World) -> None:
    begun = int(time.time() * 1000)
    models = ("hailuo", "t2v-01", "hailuo", "minimax/hailuo-02", "t2v-01")
    mine = [await world.created(LASTING, model=model) for model in models]
    pages = [await listed(world, model="hailuo", start_time=begun, size=2, page=page) for page in (1, 2, 3)]
    assert [task_id for page in pages for task_id in page] == mine[::-1]


@pytest.mark.parametrize("name", ["page_size", "size", "pageSize", "limit"])
async def test_the_size_of_a_page_has_several_names(world: World, name: str) -> None:
    for _ in range(2):
        await world.created(LASTING)
    assert len(await listed(world, **{name: "1"})) == 1


async def test_the_times_of_a_history_may_be_seconds_milliseconds_or_iso(world: World) -> None:
    task_id = await world.created(LASTING, model="timed")
    now = time.time()
    for factor in (1, 1000, 1_000_000, 1_000_000_000):
        early, late = str(int((now - 3600) * factor)), str(int((now + 3600) * factor))
        assert await listed(world, model="timed", start_time=early, end_time=late) == [task_id]
        assert await listed(world, model="timed", start_time=late) == []
        assert await listed(world, model="timed", end_time=early) == []
    early, late = (datetime.fromtimestamp(now + hours * 3600, UTC).isoformat() for hours in (-1, 1))
    assert await listed(world, model="timed", start_time=early, end_time=late) == [task_id]
    assert await listed(world, model="timed", start_time="0", end_time="", page="", unknown="x") == [task_id]


@pytest.mark.parametrize("query", ["page_size=101", "page_size=0", "page=0", "page=x", "start_time=yesterday"])
async def test_a_bad_history_query_is_refused(world: World, query: str) -> None:
    answer = await world.api.get(f"/api/open/tasks/histories?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert answer.json()["message"].startswith(query.partition("=")[0])


@pytest.mark.parametrize(
    "webhook_config",
    [
        None,
        {},
        [],
        "",
        {"endpoint": None},
        {"endpoint": ""},
        {"endpoint": " ", "secret": None},
        {"endpoint": None, "secret": None},
        {"endpoint": "", "secret": ""},
        {"secret": "only a secret"},
        {"endpoint": None, "secret": 5},
    ],
)
async def test_a_webhook_config_without_an_endpoint_means_no_callback(world: World, webhook_config: Any) -> None:
    answer = await world.create(LASTING, config={"service_mode": "public", "webhook_config": webhook_config})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["config"]["webhook_config"] == {"endpoint": "", "secret": ""}


async def test_a_callback_s_secret_may_be_null(world: World) -> None:
    answer = await world.create(config={"webhook_config": {"endpoint": world.subscriber.url, "secret": None}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["config"]["webhook_config"]["endpoint"] == world.subscriber.url


async def status_is(world: World, task_id: str, status: str) -> None:
    """Wait until the task is in this state. Raises TimeoutError."""
    async with asyncio.timeout(10):
        while (await world.task(task_id))["status"] != status:
            pass
