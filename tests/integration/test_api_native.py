"""Ringback's own paths for tasks, in Pi's envelope: lists, filters, history, refresh, cancel."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from tests.fakes.inbound import report
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

LASTING = {"pending_seconds": 60.0}
BY_HAND = {"outcome": "never", "webhook": "lost"}
BAD_QUERIES = {
    "status=nowhere": "status",
    "limit=0": "limit",
    "limit=201": "limit",
    "limit=x": "limit",
    "created_after=yesterday": "created_after",
    "created_after=nan": "created_after",
    "created_after=%C2%B2": "created_after",
    "created_before=1e400": "created_before",
    "created_before=99999999999999": "created_before",
    "created_before=9999-12-31T23:59:59-23:59": "created_before",
    "created_after=0001-01-01T00:00:00%2B23:59": "created_after",
    "cursor=nonsense": "cursor",
    "cursor=%C3%A9": "cursor",
    "cursor=" + base64.urlsafe_b64encode(b"9" * 30).decode(): "cursor",
    "metadata=x": "metadata",
    "metadata=x&metadata[tier]=gold": "metadata",
    "metadata[tier]=gold&metadata=x": "metadata",
    "colour=red": "colour",
    "model=x&model[a]=b": "model",
    "run_id[a]=b&run_id=x": "run_id",
    "model=&model[a]=b": "model",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test looks only at its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


async def listed(world: World, **query: Any) -> list[str]:
    """Return the ids of a list of tasks."""
    answer = await world.api.get("/api/v1/tasks", params=query)
    assert answer.status_code == 200, answer.text
    return [task["task_id"] for task in answer.json()["data"]["data"]]


async def paged(world: World, path: str, limit: int) -> list[dict[str, Any]]:
    """Return a whole list, page by page."""
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await world.api.get(path, params={"limit": limit, "cursor": cursor})).json()["data"]
        assert page["object"] == "list"
        assert len(page["data"]) <= limit
        assert page["has_more"] == (page["next_cursor"] is not None)
        items += page["data"]
        cursor = page["next_cursor"]
    return items


async def test_responses_have_pi_s_envelope(world: World) -> None:
    task_id = await world.created(LASTING)
    answer = await world.api.get(f"/api/v1/tasks/{task_id}")
    body = answer.json()
    assert body.keys() == {"id", "object", "status", "created_at", "data"}
    assert (body["object"], body["status"]) == ("task", "completed")
    assert body["id"].startswith("req_pi_")
    assert answer.headers["x-request-id"] == body["id"]
    assert abs(body["created_at"] - time.time()) < 60
    assert body["data"]["status"] == "pending"


@pytest.mark.parametrize(
    "path", ["/api/v1/tasks/{}", "/api/v1/tasks/{}/events", "/api/v1/tasks/{}/refresh", "/api/v1/tasks/{}/cancel"]
)
async def test_an_unknown_task_is_a_404_in_pi_s_form(world: World, path: str) -> None:
    method = "POST" if path.endswith(("refresh", "cancel")) else "GET"
    answer = await world.api.request(method, path.format(new_id()))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (404, "invalid_request_error", "task_id")
    assert error["code"] == "task_not_found"
    assert error["request_id"] == answer.headers["x-request-id"]


async def test_an_unknown_path_is_a_404_in_the_dialect_of_the_path(world: World) -> None:
    for path in ("/api/v1/nothing", "/nothing"):
        answer = await world.api.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    for path in ("/account/nothing", "/api/open/nothing", "/api/v1/task/a/b/c"):
        answer = await world.api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
    answer = await world.api.put("/api/v1/tasks")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    answer = await world.api.put("/api/v1/task")
    assert (answer.status_code, answer.json()["code"]) == (405, 405)


async def test_tasks_are_filtered_by_status_model_and_type(world: World) -> None:
    lasting = await world.created(LASTING, model="filter-a", task_type="x")
    ended = await world.created(model="filter-a", task_type="y")
    await world.ended(ended)
    assert await listed(world, model="filter-a") == [ended, lasting]
    assert await listed(world, model="filter-a", task_type="x") == [lasting]
    assert await listed(world, model="filter-a", status="completed") == [ended]
    assert await listed(world, model="filter-a", status="failed") == []
    assert await listed(world, model="filter") == []


async def test_tasks_are_filtered_by_age_in_unix_seconds_and_iso_8601(world: World) -> None:
    first = await world.created(LASTING, model="filter-age")
    moment = (await world.task(first))["created_at"]
    second = await world.created(LASTING, model="filter-age")
    assert await listed(world, model="filter-age", created_after=moment) == [second]
    assert await listed(world, model="filter-age", created_before=moment) == []
    assert await listed(world, model="filter-age", created_before=int(time.time()) + 10) == [second, first]
    assert await listed(world, model="filter-age", created_after=f"{time.time() + 10}") == []


async def test_an_offset_whose_plus_was_not_encoded_is_read_as_meant(world: World) -> None:
    task_id = await world.created(LASTING, model="filter-offset")
    moment = datetime.fromisoformat((await world.task(task_id))["created_at"]).astimezone(timezone(timedelta(hours=5)))
    for given, found in ((moment - timedelta(seconds=1), [task_id]), (moment, [])):
        for text in (given.isoformat(), given.isoformat(" "), given.isoformat().replace("+05:00", "+0500")):
            assert "+" in text
            answer = await world.api.get(f"/api/v1/tasks?model=filter-offset&created_after={text}")
            assert [task["task_id"] for task in answer.json()["data"]["data"]] == found
    day = await world.api.get("/api/v1/tasks?model=filter-offset&created_after=2026-01-31 09:30")
    assert day.status_code == 200


async def test_tasks_are_filtered_by_their_metadata(world: World) -> None:
    mine = await world.created(LASTING, metadata={"order": "42", "customer": "Ann", "a.b": "dotted"})
    await world.created(LASTING, metadata={"order": "43", "customer": "Ann"})
    assert await listed(world, **{"metadata[order]": "42"}) == [mine]
    assert await listed(world, **{"metadata[order]": "42", "metadata[customer]": "Ann"}) == [mine]
    assert await listed(world, **{"metadata[order]": "42", "metadata[customer]": "Bob"}) == []
    assert await listed(world, **{"metadata[a.b]": "dotted"}) == [mine]
    assert await listed(world, **{"metadata[nothing]": "42"}) == []
    assert (await world.task(mine))["metadata"]["customer"] == "Ann"


@pytest.mark.parametrize(("value", "asked"), [(42, "42"), (1.5, "1.5"), (True, "true"), (False, "false")])
async def test_metadata_that_is_not_a_text_is_found_by_its_json(world: World, value: Any, asked: str) -> None:
    name = f"value-{asked}"
    mine = await world.created(LASTING, metadata={name: value})
    assert await listed(world, **{f"metadata[{name}]": asked}) == [mine]


async def test_metadata_is_found_whatever_characters_its_name_has(world: World) -> None:
    mine = await world.created(LASTING, metadata={'a "quoted" name': "odd"})
    assert await listed(world, **{'metadata[a "quoted" name]': "odd"}) == [mine]


@pytest.mark.parametrize(("query", "field"), BAD_QUERIES.items(), ids=BAD_QUERIES.keys())
async def test_a_bad_query_is_refused_by_its_field(world: World, query: str, field: str) -> None:
    answer = await world.api.get(f"/api/v1/tasks?{query}")
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_query_params", field)


async def test_pages_are_newest_first_and_skip_and_repeat_nothing_while_tasks_are_created(world: World) -> None:
    there = [await world.created(LASTING, model="paged") for _ in range(11)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query: dict[str, Any] = {"model": "paged", "limit": 3, "cursor": cursor}
        page = (await world.api.get("/api/v1/tasks", params=query)).json()["data"]
        seen += [task["task_id"] for task in page["data"]]
        cursor = page["next_cursor"]
        await world.created(LASTING, model="paged")
    assert seen == there[::-1]


async def test_a_task_s_history_is_paged_newest_first(world: World) -> None:
    task_id = await world.created(BY_HAND)
    for number in range(1, 8):
        await report(world, task_id, "processing", output={"percent": number * 10})
    await report(world, task_id, "completed", output={"image_url": "https://example.com/i.png"})
    items = await paged(world, f"/api/v1/tasks/{task_id}/events", 2)
    sequence = [event["sequence"] for event in items]
    assert sequence == sorted(set(sequence), reverse=True)
    assert [event["type"] for event in items] == [
        "task.completed",
        *["task.updated"] * 7,
        "task.submitted",
        "task.created",
    ]
    assert [event["data"]["progress"] for event in items[:-2]] == [100, 70, 60, 50, 40, 30, 20, 10]
    assert len({event["id"] for event in items}) == len(items)


async def test_refresh_polls_the_provider_now(world: World) -> None:
    task_id = await world.created({"webhook": "lost"})
    await world.ended_at_the_provider()
    assert (await world.task(task_id))["status"] == "pending"
    answer = await world.api.post(f"/api/v1/tasks/{task_id}/refresh")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "completed")
    again = await world.api.post(f"/api/v1/tasks/{task_id}/refresh")
    assert again.json()["data"] == answer.json()["data"]


async def test_refresh_of_a_task_that_the_provider_does_not_show_is_not_an_error(world: World) -> None:
    task_id = await world.created({"poll": "error", "outcome": "never"})
    answer = await world.api.post(f"/api/v1/tasks/{task_id}/refresh")
    assert (answer.status_code, answer.json()["data"]["task_id"]) == (200, task_id)


async def test_cancel_has_pi_s_envelope(world: World) -> None:
    task_id = await world.created(LASTING)
    answer = await world.api.post(f"/api/v1/tasks/{task_id}/cancel")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "cancelled")
    again = await world.api.post(f"/api/v1/tasks/{task_id}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    stubborn = await world.created({**LASTING, "cancellable": False})
    refused = await world.api.post(f"/api/v1/tasks/{stubborn}/cancel")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "provider_refused")
    assert "only a pending task" in refused.json()["error"]["message"]


async def test_all_long_polls_of_a_task_return_at_its_end(world: World) -> None:
    task_id = await world.created(BY_HAND)
    path = f"/api/v1/tasks/{task_id}?wait_for_completion=true&timeout_seconds=20"
    waiting = [asyncio.create_task(world.api.get(path)) for _ in range(10)]
    await world.task(task_id)
    begun = time.monotonic()
    await report(world, task_id, "completed", output={"image_url": "https://example.com/i.png"})
    answers = await asyncio.gather(*waiting)
    assert {answer.json()["data"]["status"] for answer in answers} == {"completed"}
    assert time.monotonic() - begun < 10  # and not only at the end of the 20 seconds
