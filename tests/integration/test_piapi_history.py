"""The provider's list of tasks, as the adapter reads it: to its end, page by page, and without secrets."""

from datetime import UTC, datetime, timedelta
from threading import current_thread, main_thread
from typing import Any

import orjson
import pytest

from receiver.providers import History
from receiver.providers.piapi import PiAPI
from tests.integration.scripted_piapi import SECRET, FakeServer, Request, odd_bodies, reply

pytestmark = pytest.mark.no_database("an adapter asks the provider alone")

SINCE = datetime(2025, 3, 1, tzinfo=UTC)


async def listed(piapi: PiAPI, *, model: str, since: datetime) -> list[dict[str, Any]]:
    """Return the tasks of a list that is complete."""
    found = await piapi.history(model=model, since=since)
    assert found.is_complete
    return found.tasks


def item(number: int) -> dict[str, Any]:
    created_at = (datetime(2025, 3, 2, tzinfo=UTC) + timedelta(minutes=number)).isoformat()
    return {
        "task_id": f"t{number}",
        "meta": {"created_at": created_at},
        "config": {"webhook_config": {"endpoint": "https://r.example.com", "secret": SECRET}},
    }


async def test_history_is_paged_newest_first_and_without_secrets(server: FakeServer, piapi: PiAPI) -> None:
    def page(request: Request) -> bytes:
        start = (int(request.query["page"]) - 1) * 100
        return reply(200, {"code": 200, "data": {"list": [item(n) for n in range(start, min(start + 100, 130))]}})

    server.answer = page
    since = datetime(2025, 3, 2, tzinfo=UTC)
    tasks = await listed(piapi, model="Qubico/flux1-dev", since=since)
    assert [task["task_id"] for task in tasks] == [f"t{n}" for n in reversed(range(130))]
    assert SECRET not in repr(tasks)
    assert piapi.parse_task(tasks[0]).provider_task_id == "t129"
    assert [request.path for request in server.requests] == ["/api/open/tasks/histories"] * 2
    assert server.requests[1].query == {
        "page": "2",
        "page_size": "100",
        "model": "flux",
        "start_time": str(int(since.timestamp())),
    }


async def test_history_is_read_to_its_end_however_long_it_is(server: FakeServer, piapi: PiAPI) -> None:
    def page(request: Request) -> bytes:
        start = int(request.query["page"]) * 100
        return reply(200, {"code": 200, "data": {"data": [item(n) for n in range(start, min(start + 100, 950))]}})

    server.answer = page
    wanted = await piapi.history(model="m", since=SINCE, keep=lambda task: task["task_id"] == "t940")
    assert ([task["task_id"] for task in wanted.tasks], wanted.is_complete) == (["t940"], True)
    assert len(server.requests) == 9


async def test_a_list_without_a_filter_by_time_is_read_back_to_that_time(server: FakeServer, piapi: PiAPI) -> None:
    def page(request: Request) -> bytes:
        newest = 5000 - (int(request.query["page"]) - 1) * 100
        return reply(200, {"code": 200, "data": {"data": [item(n) for n in range(newest, newest - 100, -1)]}})

    server.answer = page
    since = datetime(2025, 3, 2, tzinfo=UTC) + timedelta(minutes=4750)
    found = await piapi.history(model="m", since=since)
    assert found.is_complete
    assert "t4750" in [task["task_id"] for task in found.tasks]
    assert len(server.requests) == 3


async def test_a_list_that_repeats_its_first_page_is_not_complete(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, {"code": 200, "data": {"data": [item(n) for n in range(100)]}}))
    found = await piapi.history(model="m", since=SINCE)
    assert (len(found.tasks), found.is_complete) == (100, False)


async def test_new_tasks_that_move_the_others_to_later_pages_hide_none(server: FakeServer, piapi: PiAPI) -> None:
    made = [item(n) for n in range(250, 0, -1)]

    def page(request: Request) -> bytes:
        start = (int(request.query["page"]) - 1) * 100
        answer = reply(200, {"code": 200, "data": {"data": made[start : start + 100], "total": len(made)}})
        made[:0] = [item(len(made) + n) for n in range(40, 0, -1)]
        return answer

    server.answer = page
    found = await piapi.history(model="m", since=SINCE)
    assert found.is_complete
    assert {f"t{n}" for n in range(1, 251)} <= {task["task_id"] for task in found.tasks}


async def test_a_page_is_asked_for_again_when_the_provider_asks_to_wait(server: FakeServer, piapi: PiAPI) -> None:
    answers = iter([reply(429, retry_after="0"), reply(200, {"data": []})])
    first = reply(200, {"code": 200, "data": [item(n) for n in range(100)]})
    server.answer = lambda request: first if request.query["page"] == "1" else next(answers)
    found = await piapi.history(model="m", since=SINCE)
    assert (len(found.tasks), found.is_complete) == (100, True)


def of_model(name: str, number: int = 1) -> dict[str, Any]:
    return {**item(number), "model": name}


async def test_a_family_s_list_without_the_model_is_followed_by_the_list_of_all(
    server: FakeServer, piapi: PiAPI
) -> None:
    all_of_them = reply(200, {"code": 200, "data": {"data": [of_model("Qubico/flux1-dev", 2), of_model("kling")]}})
    of_family = reply(200, {"code": 200, "data": {"data": [of_model("Qubico/flux1-schnell", 3)]}})
    server.answer = lambda request: of_family if "model" in request.query else all_of_them
    tasks = await listed(piapi, model="Qubico/flux1-dev", since=datetime.now(UTC))
    assert [task["task_id"] for task in tasks] == ["t3", "t2", "t1"]
    assert [request.query.get("model") for request in server.requests] == ["flux", None]


async def test_a_family_s_list_with_the_model_is_enough(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, {"code": 200, "data": {"data": [of_model("MIDJOURNEY"), of_model("niji", 2)]}}))
    assert len(await listed(piapi, model="midjourney", since=datetime.now(UTC))) == 2
    assert [request.query.get("model") for request in server.requests] == ["mj"]


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_family_that_the_provider_does_not_know_is_not_the_end_of_the_search(
    server: FakeServer, piapi: PiAPI, status: int
) -> None:
    found = reply(200, {"code": 200, "data": {"data": [of_model("kling")]}})
    server.answer = lambda request: reply(status) if "model" in request.query else found
    tasks = await listed(piapi, model="kling", since=datetime.now(UTC))
    assert [task["task_id"] for task in tasks] == ["t1"]


async def test_a_provider_that_does_not_answer_is_asked_once(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(500))
    assert await piapi.history(model="kling", since=datetime.now(UTC)) == History([], is_complete=False)
    assert len(server.requests) == 1


async def test_a_task_that_moved_to_the_next_page_is_listed_once(server: FakeServer, piapi: PiAPI) -> None:
    pages = {"1": [of_model("kling", n) for n in range(100)], "2": [of_model("kling", 0), of_model("kling", 100)]}
    server.answer = lambda request: reply(200, {"code": 200, "data": {"data": pages[request.query["page"]]}})
    tasks = await listed(piapi, model="kling", since=datetime.now(UTC))
    assert sorted(task["task_id"] for task in tasks) == sorted(f"t{n}" for n in range(101))


async def test_odd_items_of_a_history_hide_no_other(server: FakeServer, piapi: PiAPI) -> None:
    odd: list[Any] = [
        None,
        7,
        "none",
        [],
        {},
        {"task_id": None},
        {"task_id": []},
        {"meta": "x"},
        {"model": 5, "meta": {"created_at": 1}},
    ]
    server.responds(reply(200, {"code": 200, "data": {"data": [*odd, of_model("kling"), *odd]}}))
    tasks = await listed(piapi, model="kling", since=datetime.now(UTC))
    assert "t1" in [task.get("task_id") for task in tasks]


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "data": {"list": [item(1), "noise"]}},
        {"code": 200, "data": {"data": [item(1)], "page": 1, "size": 100, "total": 1}},
        {"code": 200, "data": {"list": None, "data": [item(1)]}},
        {"code": 200, "data": {"data": None, "list": [item(1)]}},
        {"code": 0, "data": {"tasks": [item(1)]}},
        {"code": 200, "data": {"items": [item(1)]}},
        {"data": [item(1)]},
        [item(1)],
    ],
)
async def test_the_history_is_found_under_every_name(server: FakeServer, piapi: PiAPI, body: Any) -> None:
    server.responds(reply(200, body))
    tasks = await listed(piapi, model="m", since=datetime.now(UTC))
    assert [task["task_id"] for task in tasks] == ["t1"]


@pytest.mark.parametrize("data", [None, [], {"list": None}, {"tasks": []}])
async def test_an_empty_history_is_not_a_failure(server: FakeServer, piapi: PiAPI, data: Any) -> None:
    server.responds(reply(200, {"code": 200, "data": data}))
    assert await piapi.history(model="m", since=datetime.now(UTC)) == History([], is_complete=True)


@pytest.mark.parametrize(
    "answer",
    [
        reply(500),
        reply(200, b"<html>"),
        reply(200, {"code": 401, "data": []}),
        reply(200, {"code": 200, "data": {}}),
        b"",
    ],
)
async def test_a_failed_history_is_not_complete(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    assert await piapi.history(model="m", since=datetime.now(UTC)) == History([], is_complete=False)


async def test_if_a_page_fails_the_pages_before_it_are_returned_and_the_list_is_not_complete(
    server: FakeServer, piapi: PiAPI
) -> None:
    first = reply(200, {"code": 200, "data": [item(n) for n in range(100)]})
    server.answer = lambda request: first if request.query["page"] == "1" else reply(500)
    found = await piapi.history(model="m", since=datetime.now(UTC))
    assert (len(found.tasks), found.is_complete) == (100, False)


@pytest.mark.parametrize("number", range(11))
async def test_an_odd_task_in_the_history_does_not_hide_the_others(
    server: FakeServer, piapi: PiAPI, number: int
) -> None:
    foreign = {**item(2), "output": {"note": "@"}}
    body = odd_bodies(orjson.dumps({"code": 200, "data": [foreign, item(1)]}))[number]
    server.responds(reply(200, body))
    tasks = await listed(piapi, model="m", since=datetime.now(UTC))
    assert [piapi.parse_task(task).provider_task_id for task in tasks] == ["t2", "t1"]


@pytest.mark.parametrize(("text", "is_apart"), [("short", False), ("x" * 100_000, True)])
async def test_a_large_page_is_looked_at_apart_from_the_event_loop(
    server: FakeServer, piapi: PiAPI, text: str, is_apart: bool
) -> None:
    threads: list[bool] = []

    def keep(_task: dict[str, Any]) -> bool:
        threads.append(current_thread() is not main_thread())
        return True

    server.responds(reply(200, {"code": 200, "data": {"list": [item(1) | {"input": {"prompt": text}}]}}))
    found = await piapi.history(model="m", since=SINCE, keep=keep)
    assert (len(found.tasks), found.is_complete, set(threads)) == (1, True, {is_apart})
