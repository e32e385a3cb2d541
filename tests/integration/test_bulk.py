"""`POST /api/v1/tasks`: many tasks in one call, each accepted or refused separately, sent in the background."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from models import EventType
from receiver.api.idempotency import Idempotency
from receiver.errors import StorageUnavailable
from tests.fakes.rows import select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = "SELECT count(*) AS tasks FROM task"
QUIET = {"webhook": "lost", "outcome": "never"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the tests that look only at their own tasks."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


def wanted(sandbox: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the body of one task."""
    given = {"prompt": "a cat", **({"sandbox": dict(sandbox)} if sandbox else {})}
    return {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": given, **fields}


async def ask(world: World, *tasks: Any, **headers: str) -> httpx.Response:
    return await world.api.post("/api/v1/tasks", json={"tasks": tasks}, headers=headers)


async def created(world: World, *tasks: Any) -> list[str]:
    """Create tasks that must all be accepted; return their ids."""
    answer = await ask(world, *tasks)
    assert answer.status_code == 202, answer.text
    return [item["task_id"] for item in answer.json()["data"]["data"]]


async def test_all_tasks_of_a_call_are_created_and_end(world: World) -> None:
    answer = await ask(world, *(wanted(metadata={"n": n}) for n in range(15)))
    body = answer.json()
    assert (answer.status_code, body["object"], body["status"], body["data"]["object"]) == (
        202,
        "list",
        "queued",
        "list",
    )
    assert [item["index"] for item in body["data"]["data"]] == list(range(15))
    ids = [item["task_id"] for item in body["data"]["data"]]
    ended = [await world.ended(task_id) for task_id in ids]
    assert [(task["status"], task["metadata"]["n"]) for task in ended] == [("completed", n) for n in range(15)]
    assert len({task["provider_task_id"] for task in ended}) == 15


async def test_a_bulk_task_s_first_event_shows_it_waiting(world: World) -> None:
    (task_id,) = await created(world, wanted())
    await world.ended(task_id)
    events = await world.events(task_id)
    assert events[0]["type"] == EventType.TASK_CREATED
    assert events[0]["data"]["submission"] == "waiting"


async def test_invalid_tasks_do_not_stop_valid_ones(world: World) -> None:
    forbidden = {"webhook_config": {"endpoint": "ftp://example.com"}}
    answer = await ask(
        world,
        wanted(),
        {"model": "flux"},
        "not even an object",
        wanted(config=forbidden),
        wanted(retry={"max_attempts": 9}),
        wanted(),
    )
    assert answer.status_code == 202
    items = answer.json()["data"]["data"]
    assert [sorted(item.keys() - {"index"}) for item in items] == [["task_id"], *[["error"]] * 4, ["task_id"]]
    errors = [item["error"] for item in items if "error" in item]
    assert [error.get("param") for error in errors] == [
        "task_type",
        None,
        "config.webhook_config.endpoint",
        "retry.max_attempts",
    ]
    assert all(error["code"] and error["message"] for error in errors)
    assert errors[1]["message"].startswith("Input should be")
    for item in (items[0], items[5]):
        assert (await world.ended(item["task_id"]))["status"] == "completed"


async def test_a_call_of_which_all_tasks_are_refused_is_202_too(world: World) -> None:
    before = select(world, COUNT)
    answer = await ask(world, {}, {})
    assert (answer.status_code, len(answer.json()["data"]["data"])) == (202, 2)
    assert select(world, COUNT) == before


@pytest.mark.parametrize(
    "body",
    [{"tasks": []}, {"tasks": [{}] * 1001}, {}, {"tasks": {"model": "flux"}}],
    ids=["none", "too many", "not said", "no list"],
)
async def test_a_body_without_one_to_a_thousand_tasks_is_refused(world: World, body: Any) -> None:
    answer = await world.api.post("/api/v1/tasks", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tasks")


async def test_a_repeat_with_the_same_key_gets_the_same_tasks(world: World) -> None:
    before = select(world, COUNT)[0]["tasks"]
    tasks = [wanted(), {}, wanted()]
    first, again = [await ask(world, *tasks, **{"idempotency-key": "one bulk"}) for _ in range(2)]
    assert first.json() == again.json()
    assert again.headers["x-idempotency-replayed"] == "true"
    assert select(world, COUNT)[0]["tasks"] == before + 2


async def test_a_bulk_call_that_got_no_response_is_resumed_by_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise StorageUnavailable("the disk is full just now")

    before = select(world, COUNT)[0]["tasks"]
    tasks = [wanted(), {}, wanted()]
    with monkeypatch.context() as broken:
        broken.setattr(Idempotency, "_save", fails)
        assert (await ask(world, *tasks, **{"idempotency-key": "unanswered"})).status_code == 503
    items = (await ask(world, *tasks, **{"idempotency-key": "unanswered"})).json()["data"]["data"]
    assert select(world, COUNT)[0]["tasks"] == before + 2
    assert [(await world.ended(items[index]["task_id"]))["status"] for index in (0, 2)] == ["completed"] * 2
    assert "error" in items[1]


async def test_tasks_of_a_bulk_call_may_refer_to_others(world: World) -> None:
    (origin,) = await created(world, wanted({"pending_seconds": 0.2}))
    task = wanted()
    task["input"]["origin_task_id"] = origin
    (task_id,) = await created(world, task)
    done = await world.ended(task_id)
    assert (done["status"], done["input"]["origin_task_id"]) == ("completed", origin)
    made_there = {each["task_id"]: each for each in (await world.provider.get("/sandbox/tasks")).json()["tasks"]}
    sent = made_there[done["provider_task_id"]]["input"]["origin_task_id"]
    assert sent == (await world.task(origin))["provider_task_id"]


async def test_a_callback_that_all_tasks_name_is_stored_once_and_gets_all_their_events(world: World) -> None:
    url = f"{world.subscriber.base}/bulk"
    config = {"webhook_config": {"endpoint": url, "secret": "s3cret"}}
    ids = await created(world, *(wanted(config=config) for _ in range(5)))

    def told(received: list[Any]) -> set[str]:
        return {each.json["data"]["task_id"] for each in received if each.path == "/bulk" and _is_end(each.json)}

    await world.subscriber.until(lambda received: told(received) == set(ids))
    assert len(select(world, "SELECT id FROM subscription WHERE endpoint_url = ?", url)) == 1


async def test_the_body_is_bounded_as_a_whole_and_not_by_the_limit_of_webhooks(tmp_path: Path) -> None:
    async with in_process(tmp_path, max_body_bytes="1024", max_request_bytes="16384") as world:
        answer = await ask(world, *[wanted(metadata={"note": "x" * 3000})] * 5, **{"idempotency-key": "large"})
        assert answer.status_code == 202
        assert all("task_id" in item for item in answer.json()["data"]["data"])
        refused = await ask(world, *[wanted(metadata={"note": "x" * 3000})] * 6)
        assert refused.status_code == 413
        assert "RINGBACK_MAX_REQUEST_BYTES" in refused.json()["error"]["message"]


async def test_neither_a_single_create_nor_a_poll_waits_for_a_bulk_call_before_it(tmp_path: Path) -> None:
    async with in_process(tmp_path, provider_rate="3/s", stop_seconds="0.1") as world:
        watched = await world.created(QUIET)
        await created(world, *(wanted(QUIET) for _ in range(60)))
        while (before := await made(world)) < 3:
            pass
        single = await world.task(await world.created(QUIET))
        order = [task["task_id"] for task in (await world.provider.get("/sandbox/tasks")).json()["tasks"]]
        # In a common queue it would wait behind the 22 that are claimed by now.
        assert order.index(single["provider_task_id"]) < before + 12
        before = await made(world)
        assert (await world.api.post(f"/api/v1/tasks/{watched}/refresh")).status_code == 200
        assert await made(world) < before + 12


async def test_a_busy_provider_gets_all_tasks_in_the_end(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        await world.provider_options(submit_status=429, retry_after=0, concurrency=3)
        ids = await created(world, *(wanted() for _ in range(12)))
        while "POST /api/v1/task" not in (await world.provider_stats())["requests"]:
            pass
        await world.provider_options(submit_status=None)
        tasks = [await world.ended(task_id) for task_id in ids]
        assert {(task["status"], task["attempt"]) for task in tasks} == {("completed", 1)}
        assert await made(world) == 12


async def made(world: World) -> int:
    """Return how many tasks the provider made."""
    return int((await world.provider_stats())["created"])


def _is_end(body: Any) -> bool:
    return bool(body["data"]["status"] == "completed")
