"""Pages of events, newest first: without what is large, and with a bound on how many are looked at."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.reader import EVENT_STREAM
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS = "/api/v1/events"
COUNT = 8


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world with a failed task, and then several that completed."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        await world.ended(await world.created({"outcome": "failed"}, model="rare"))
        for _ in range(COUNT):
            await world.ended(await world.created())
        yield world


async def page(world: World, **query: Any) -> dict[str, Any]:
    answer = await world.api.get(EVENTS, params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def test_brief_events_are_the_same_without_what_may_be_large(world: World) -> None:
    whole, brief = [(await page(world, limit=200, brief=each))["data"] for each in ("false", "true")]
    large = {"input", "output", "logs", "config", "usage"}
    assert any(large <= event["data"].keys() for event in whole)
    for event in whole:
        event["data"] = {name: value for name, value in event["data"].items() if name not in large}
    assert brief == whole
    oldest = await page(world, limit=200, brief="true", after="0")
    assert oldest["data"] == whole[::-1]


@pytest.mark.parametrize("wanted", [{"event_types": "task.failed"}, {"model": "rare"}], ids=str)
async def test_a_page_that_looks_at_few_events_ends_early_and_leads_on(world: World, wanted: dict[str, str]) -> None:
    everything = (await page(world, limit=200))["data"]
    expected = [event["id"] for event in (await page(world, limit=200, **wanted))["data"]]
    found: list[str] = []
    query: dict[str, Any] = {**wanted, "limit": 3, "scan_limit": 5}
    for pages in range(1, 50):
        part = await page(world, **query)
        found += [event["id"] for event in part["data"]]
        if not part["has_more"]:
            assert part["scanned_until"] is None
            break
        if len(part["data"]) < 3:
            assert part["scanned_until"] == everything[5 * pages]["created_at"]
        query["cursor"] = part["next_cursor"]
    assert found == expected
    assert found
    assert pages >= len(everything) // 5


async def test_a_filter_that_an_index_answers_looks_at_all_events(world: World) -> None:
    failed = (await page(world, event_types="task.failed"))["data"][0]["task_id"]
    part = await page(world, task_id=failed, scan_limit=1)
    assert [event["task_id"] for event in part["data"]] == [failed] * len(part["data"])
    assert (len(part["data"]) > 1, part["has_more"], part["scanned_until"]) == (True, False, None)


async def test_the_stream_has_whole_events_and_looks_at_all(world: World) -> None:
    for query in ({"brief": "true"}, {"scan_limit": "5"}):
        answer = await world.api.get(EVENTS, params=query, headers=EVENT_STREAM)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))
    assert (await world.api.get(EVENTS, params={"scan_limit": "5", "after": "0"})).status_code == 400
