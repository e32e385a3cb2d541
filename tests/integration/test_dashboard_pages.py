"""What pages answer, without a browser: headers, filters, live hints, errors, and what a form does twice."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.dashboard.live import hints
from receiver.domain.ids import new_id
from receiver.domain.server_sent import comment, event_frame, retry_hint
from tests.fakes.dashboard import rows, signed_in, token_of
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\u2066\x1b[31m\"'"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("dashboard")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


async def test_every_page_forbids_what_is_not_its_own(client: httpx.AsyncClient) -> None:
    for path in ("/overview", "/events", "/tasks", "/sign-in", f"/tasks/{new_id()}", "/no-such-page"):
        headers = (await client.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'; form-action 'self'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cache-control"] == "no-store"


async def test_no_page_has_a_script_or_style_within_it(world: World, client: httpx.AsyncClient) -> None:
    task = await world.created()
    for path in ("/overview", "/events", "/tasks", f"/tasks/{task}", "/sign-in"):
        page = (await client.get(path)).text
        assert re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|javascript:", page) == []


async def test_static_files_are_kept_for_good_under_the_name_of_their_version(client: httpx.AsyncClient) -> None:
    page = (await client.get("/tasks")).text
    style = re.findall(r'href="(/static/[^"]+\.css)"', page)[0]
    answer = await client.get(style)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    other = await client.get(re.sub(r"/static/\w+/", "/static/another/", style))
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-store")
    assert (await client.get("/static/x/..%2Fpages.py")).status_code == 404


async def test_a_list_shows_what_the_api_returns_for_the_same_query(world: World, client: httpx.AsyncClient) -> None:
    tag = new_id()
    ids = [await world.created(metadata={"tag": tag, "n": number}) for number in range(5)]
    query = {"metadata[tag]": tag, "limit": "2"}
    page = await client.get("/tasks", params=query)
    assert rows(page.text) == ids[:2:-1]
    (older,) = re.findall(r'rel="next" href="([^"]+)"', page.text)
    page = await client.get(unescape(older))
    assert rows(page.text) == ids[2:0:-1]
    assert rows((await client.get("/tasks", params={**query, "metadata[n]": "3"})).text) == [ids[3]]


async def test_a_form_s_empty_fields_are_not_in_the_url(client: httpx.AsyncClient) -> None:
    fields = {"model": "", "status": "failed", "metadata_key": "customer", "metadata_value": "42", "search": ""}
    answer = await client.get("/tasks", params=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks?status=failed&metadata%5Bcustomer%5D=42")


@pytest.mark.parametrize(
    ("text", "leads_to"),
    [
        ("customer=42", "/tasks?metadata%5Bcustomer%5D=42"),
        ("Failed", "/tasks?status=failed"),
        ("Qubico/flux1-schnell", "/tasks?q=Qubico%2Fflux1-schnell"),
    ],
)
async def test_a_search_leads_to_what_its_text_means(client: httpx.AsyncClient, text: str, leads_to: str) -> None:
    assert (await client.get("/tasks", params={"search": text})).headers["location"] == leads_to


async def test_a_search_finds_a_task_by_its_id_and_by_the_provider_s(world: World, client: httpx.AsyncClient) -> None:
    task = await world.ended(await world.created())
    for text in (task["task_id"], task["provider_task_id"]):
        answer = await client.get("/tasks", params={"search": text})
        assert answer.headers["location"] == f"/tasks/{task['task_id']}"


@pytest.mark.parametrize(
    "query",
    [
        "status=odd",
        "created_after=noon",
        "limit=9999",
        "cursor=x",
        "color=red",
        "run_id=0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6073",
    ],
)
async def test_a_filter_that_the_api_refuses_is_told_on_the_page(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/tasks?{query}")
    assert (answer.status_code, "This filter does not work" in answer.text) == (
        400 if "run" not in query else 404,
        True,
    )


async def test_what_strangers_send_is_escaped_and_made_visible(world: World, client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {
        "model": HOSTILE,
        "input": {HOSTILE: [HOSTILE, "javascript:alert(1)"]},
        "metadata": {HOSTILE: HOSTILE},
    }
    answer = await world.create(**fields)
    task = answer.json()["data"]["task_id"]
    columns = "&".join(f"columns={name}" for name in ("model", "metadata", "error"))
    for path in (f"/tasks/{task}?raw=1", f"/tasks?{columns}"):
        page = (await client.get(path)).text
        assert "gnp.exe" in page
        assert "<script>alert" not in page
        assert not set("\u202e\u2066\x1b") & set(page)
        assert "\\u202e" in page
        assert 'href="javascript' not in page


async def test_numbers_keep_all_their_digits(world: World, client: httpx.AsyncClient) -> None:
    task = await world.created(input={"prompt": "x", "seed": 9007199254740993, "scale": 0.1234567890123456})
    page = (await client.get(f"/tasks/{task}")).text
    assert ("9007199254740993" in page, "0.1234567890123456" in page) == (True, True)


async def test_previews_are_allowed_from_the_result_s_host_and_only_when_asked(
    world: World, client: httpx.AsyncClient
) -> None:
    task = await world.ended(await world.created())
    host = re.match(r"http://[^/]+", task["output"]["image_url"])
    assert host is not None
    path = f"/tasks/{task['task_id']}"
    answer = await client.get(path)
    assert (host[0] in answer.headers["content-security-policy"], '<img src="http' in answer.text) == (False, False)
    answer = await client.get(path, params={"preview": "1"})
    assert f"img-src 'self' {host[0]}; media-src 'self' {host[0]}" in answer.headers["content-security-policy"]
    assert f'<img src="{task["output"]["image_url"]}"' in answer.text


async def test_a_form_that_is_sent_twice_acts_once(world: World, client: httpx.AsyncClient) -> None:
    task = await world.created({"outcome": "failed"}, retry={"max_attempts": 1})
    await world.ended(task)
    data = {"csrf": await token_of(client, "/tasks"), "once": new_id()}
    answers = [await client.post(f"/tasks/{task}/retry", data=data) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    await world.ended(task)
    assert (await world.task(task))["attempt"] == 2


async def test_an_act_that_is_refused_is_told_on_the_page(world: World, client: httpx.AsyncClient) -> None:
    task = await world.created()
    await world.ended(task)
    data = {"csrf": await token_of(client, "/tasks"), "back": "/tasks?status=completed"}
    answer = await client.post(f"/tasks/{task}/retry", data=data)
    assert answer.headers["location"] == "/tasks?status=completed"
    assert "<strong>Not done.</strong>" in (await client.get("/tasks")).text
    assert "<strong>Not done.</strong>" not in (await client.get("/tasks")).text


async def test_live_tells_that_something_happened_and_not_what(world: World, client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/live", params={"event_types": "task.completed"}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = answer.aiter_lines()
        task = await world.created()
        async with asyncio.timeout(10):
            seen = [line async for line in _until(lines, "data: {}")]
    assert [line for line in seen if line.startswith("event:") or task in line] == []


async def _until(lines: AsyncIterator[str], last: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line == last:
            return


async def test_hints_keep_positions_and_comments() -> None:
    frames = retry_hint(2000) + comment("from here on", "7") + event_frame("8", "task.completed", {"data": "event: x"})
    assert hints(frames) == b"retry: 2000\n\n: from here on\nid: 7\n\nid: 8\ndata: {}\n\n"


async def test_an_unknown_page_is_a_page_for_a_browser_alone(world: World, client: httpx.AsyncClient) -> None:
    answer = await client.get("/nothing")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    for path, headers in (("/nothing", {"accept": "*/*"}), ("/api/v1/nothing", {"accept": "text/html"})):
        assert (await client.get(path, headers=headers)).headers["content-type"] == "application/json"
    answer = await client.get(f"/tasks/{new_id()}")
    assert (answer.status_code, "task_not_found" in answer.text) == (404, True)


async def test_brief_tasks_are_without_what_may_be_large(world: World) -> None:
    task = await world.ended(await world.created(metadata={"a": 1}))
    listed = (await world.api.get("/api/v1/tasks", params={"brief": "true", "limit": 1})).json()["data"]["data"][0]
    assert listed == {name: task[name] for name in task if name in listed}
    large = {"input", "output", "logs", "config", "usage"}
    assert large.isdisjoint(listed)
    events = await world.api.get(f"/api/v1/tasks/{task['task_id']}/events", params={"brief": "true"})
    assert all(large.isdisjoint(event["data"]) for event in events.json()["data"]["data"])
