"""The page of events, without a browser: filters, what each event is about, older pages."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import pytest_asyncio

import receiver.dashboard.events as shown
from tests.fakes.dashboard import rows, signed_in
from tests.fakes.pipeline import ACTIONS
from tests.fakes.ports import free_port
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[31m\"'"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("events"), retry_schedule="0", actions_file=str(ACTIONS)) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


async def listed(world: World, **query: Any) -> list[dict[str, Any]]:
    answer = await world.api.get("/api/v1/events", params={"limit": 200, **query})
    return list(answer.json()["data"]["data"])


async def test_it_is_empty_at_first_and_says_how_to_begin(world: World, client: httpx.AsyncClient) -> None:
    assert "ringback task create" in (await client.get("/events")).text


async def test_it_shows_what_the_api_returns_for_the_same_query(world: World, client: httpx.AsyncClient) -> None:
    task = await world.ended(await world.created({"outcome": "failed"}, model="one"))
    await world.ended(await world.created(model="two"))
    for query in (
        {"task_id": task["task_id"]},
        {"task_id": task["provider_task_id"]},
        {"event_types": "task.failed"},
        {"event_types": "task.failed,task.created", "model": "one"},
        {"task_type": "txt2img"},
        {"model": "three"},
    ):
        expected = [event["id"] for event in await listed(world, **query)]
        assert rows((await client.get("/events", params={**query, "limit": "200"})).text) == expected
    page = (await client.get("/events", params={"limit": "2", "event_types": "task.*"})).text
    assert rows(page) == [event["id"] for event in await listed(world)][:2]
    (older,) = re.findall(r'rel="next" href="([^"]+)"', page)
    page = (await client.get(unescape(older))).text
    assert rows(page) == [event["id"] for event in await listed(world)][2:4]
    assert "data-live" not in page  # what is over does not change


async def test_a_filter_that_few_events_pass_says_how_far_it_looked(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "MOST_LOOKED_AT", 1)
    await world.ended(await world.created())
    page = (await client.get("/events?event_types=run.failed")).text
    assert ("were looked at" in page, 'rel="next"' in page, rows(page)) == (True, True, [])


async def test_events_lead_to_what_they_are_about(world: World, client: httpx.AsyncClient) -> None:
    webhook = await world.webhook(endpoint_url=f"http://127.0.0.1:{free_port()}/")
    steps = [{"id": "one", "action": "campaigns.generate"}]
    run = (await world.api.post("/api/v1/runs", json={"steps": steps})).json()["data"]["run_id"]
    async with asyncio.timeout(20):
        while not (dead := await listed(world, event_types="delivery.dead")):
            pass
    page = (await client.get("/events", params={"event_types": "system.*"})).text
    assert f'href="/deliveries/{dead[0]["data"]["delivery"]["id"]}"' in page
    assert "was given up after 1 attempts" in page
    page = (await client.get("/events", params={"run_id": run, "limit": "200"})).text
    assert f'href="/runs/{run}"' in page
    (step,) = {event["task_id"] for event in await listed(world, run_id=run) if event["task_id"]}
    assert f'href="/tasks/{step}"' in page
    await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")


async def test_what_strangers_send_is_escaped_and_made_visible(world: World, client: httpx.AsyncClient) -> None:
    answer = await world.create(model=HOSTILE, metadata={HOSTILE: HOSTILE, "n": 9007199254740993})
    task = answer.json()["data"]["task_id"]
    for query in ({"task_id": task}, {"model": HOSTILE}):
        page = (await client.get("/events", params=query)).text
        assert rows(page) != []
        assert ("<script>alert" in page, set("\u202e\x1b") & set(page)) == (False, set())
        assert ("\\u202egnp.exe" in page, "9007199254740993" in page) == (True, True)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("event_types=odd", 400),
        ("limit=0", 400),
        ("task_id=0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6073", 404),
        ("cursor=x", 400),
        ("color=red", 400),
    ],
)
async def test_a_filter_that_the_api_refuses_is_told_on_the_page(
    client: httpx.AsyncClient, query: str, status: int
) -> None:
    answer = await client.get(f"/events?{query}")
    assert (answer.status_code, "This filter does not work" in answer.text) == (status, True)
    assert "data-live" not in answer.text


async def test_a_search_leads_to_what_its_text_means(world: World, client: httpx.AsyncClient) -> None:
    task = await world.ended(await world.created())
    steps = [{"id": "one", "action": "campaigns.generate"}]
    run = (await world.api.post("/api/v1/runs", json={"steps": steps})).json()["data"]["run_id"]
    for text, name in (
        (task["task_id"], "task_id"),
        (task["provider_task_id"], "task_id"),
        (run, "run_id"),
        ("task.failed", "event_types"),
        ("no such thing", "model"),
    ):
        answer = await client.get("/events", params={"search": text, "limit": "7", "cursor": "MTA"})
        assert answer.headers["location"] == f"/events?{urlencode([('limit', '7'), (name, text)])}"


async def test_a_system_event_of_another_form_is_shown_all_the_same() -> None:
    event: dict[str, Any] = {"type": "webhook.disabled", "data": {"webhook": {}}, "task_id": None, "run_id": None}
    entry = shown._entry(event)
    assert (entry.kind, entry.subject.word, entry.notes) == ("dead", "webhook", [])
