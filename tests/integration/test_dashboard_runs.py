"""The pages Runs, Run and "Create a run", without a browser."""

import json
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.api.runs import MOST_RUN_BYTES
from receiver.dashboard.forms import MOST_BYTES
from receiver.dashboard.new_run import EXAMPLE
from receiver.domain.ids import new_id
from tests.fakes.dashboard import rows, signed_in, token_of
from tests.fakes.pipeline import FAILS, HELD, begin, ended, get_run, step, until_steps, world_with_actions
from tests.fakes.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\u2066\x1b[31m\"'"
LONG = "step_with_a_very_long_name_" + "x" * 33


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with world_with_actions(tmp_path_factory.mktemp("dashboard")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def reader(world: World) -> AsyncIterator[httpx.AsyncClient]:
    key = (await world.api.post("/api/v1/keys", json={"name": "read", "scope": "read"})).json()["data"]["key"]
    async with signed_in(world, key) as client:
        yield client


async def send(client: httpx.AsyncClient, text: str, once: str | None = None) -> httpx.Response:
    """Send the form as a browser does."""
    fields = {"csrf": await token_of(client, "/runs"), "once": once or new_id(), "run": text}
    return await client.post("/runs/new", files={name: (None, value) for name, value in fields.items()})


async def test_the_list_shows_runs_with_their_steps_by_the_filters_of_its_url(
    world: World, client: httpx.AsyncClient
) -> None:
    tag = new_id()[-8:]
    good = await begin(world, step("a"), step("b", "a"), metadata={"tag": tag, "deep": {"x": 1}, "yes": True})
    bad = await begin(world, step("a", sandbox=FAILS), step("b", "a"), metadata={"tag": tag})
    for run in (good, bad):
        await ended(world, run)
    page = (await client.get("/runs", params={"metadata[tag]": tag})).text
    assert rows(page) == [bad, good]
    assert re.findall(r"<span class=\"unseen\">(a [^<]+)</span>", page) == [
        "a failed, b skipped",
        "a completed, b completed",
    ]
    assert re.findall(r"(\d of \d)", page) == ["0 of 2", "2 of 2"]
    assert "metadata%5Byes%5D=true" in page
    assert rows((await client.get("/runs", params={"metadata[tag]": tag, "status": "failed"})).text) == [bad]
    page = (await client.get("/runs", params={"metadata[tag]": tag, "limit": "1"})).text
    (older,) = re.findall(r'rel="next" href="([^"]+)"', page)
    assert rows((await client.get(unescape(older))).text) == [good]


@pytest.mark.parametrize("query", ["status=odd", "limit=9999", "cursor=x", "color=red"])
async def test_a_filter_that_the_api_refuses_is_told_on_the_page(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/runs?{query}")
    assert (answer.status_code, "This filter does not work." in answer.text) == (400, True)


async def test_a_search_leads_to_a_run_or_to_a_filter(world: World, client: httpx.AsyncClient) -> None:
    run = await begin(world, step("a"))
    leads = {"customer=42": "/runs?metadata%5Bcustomer%5D=42", "Failed": "/runs?status=failed", run: f"/runs/{run}"}
    for text, path in leads.items():
        assert (await client.get("/runs", params={"search": text})).headers["location"] == path
    for text, status in ((HOSTILE, 400), (new_id(), 404)):
        answer = await client.get("/runs", params={"search": text})
        assert (answer.status_code, "No run has the id" in answer.text) == (status, True)
        assert "<script>alert" not in answer.text


async def test_a_run_s_page_shows_its_graph_its_times_and_what_went_between_steps(
    world: World, client: httpx.AsyncClient
) -> None:
    retry = {"max_attempts": 2, "backoff_seconds": 0}
    given = {"from": "$steps.a.result.task_id", "who": "$run.metadata.who"}
    last = step("c", "a", "b", sandbox=FAILS, retry=retry, input_map=given)
    run_id = await begin(world, step("a"), step("b"), last, step("d", "c"), metadata={"who": "me"})
    run = await ended(world, run_id)
    page = (await client.get(f"/runs/{run_id}")).text
    assert len(re.findall(r'class="edge s-completed"', page)) == 2
    assert len(re.findall(r'class="edge s-failed"', page)) == 1
    for each in run["steps"][:3]:
        assert page.count(f'href="/tasks/{each["job_id"]}"') >= 3  # in the graph, the bars, the data
    assert "· 2 attempts" in page
    assert "waited for a, b" in page
    assert f'<code class="mapped-value">&#34;{run["steps"][0]["job_id"]}&#34;</code>' in page
    assert "Step c failed." in page
    assert "Nothing: it has ended." in page
    assert page.count("run.created") == 1
    assert page.count("run.failed") == 1
    answer = await client.get(f"/runs/{run_id}/file", params={"step": "a", "part": "result"})
    assert answer.json() == run["steps"][0]["result"]
    for query in ({"step": "z", "part": "result"}, {"step": "a", "part": "id"}):
        assert (await client.get(f"/runs/{run_id}/file", params=query)).status_code == 404


async def test_an_open_run_tells_what_happens_next_and_is_cancelled_and_retried(
    world: World, client: httpx.AsyncClient
) -> None:
    run_id = await begin(world, step("a", sandbox=HELD), step("b", "a"))
    await until_steps(world, run_id, a="processing")
    page = (await client.get(f"/runs/{run_id}")).text
    assert "has not ended: the provider has it" in page
    assert "waits for a" in page
    assert ">now<" in page
    data = {"csrf": await token_of(client, "/runs"), "once": new_id()}
    for act, word in (("cancel", "The run is cancelled."), ("retry", "What failed, was skipped or cancelled is done")):
        answer = await client.post(f"/runs/{run_id}/{act}", data={**data, "once": new_id()})
        assert answer.headers["location"] == f"/runs/{run_id}"
        assert word in (await client.get(f"/runs/{run_id}")).text
    answer = await client.post(f"/runs/{run_id}/retry", data={**data, "once": new_id()})
    assert "<strong>Not done.</strong>" in (await client.get(f"/runs/{run_id}")).text
    assert (await client.post(f"/runs/{run_id}/other", data=data)).status_code == 404
    await client.post(f"/runs/{run_id}/cancel", data={**data, "once": new_id()})


async def test_what_strangers_send_is_escaped_and_made_visible(world: World, client: httpx.AsyncClient) -> None:
    hostile = step(LONG, input={HOSTILE: HOSTILE, "url": "javascript:alert(1)"}, input_map={HOSTILE: "$run.metadata.h"})
    run_id = await begin(world, hostile, step("b", LONG), metadata={"h": HOSTILE, HOSTILE: [1]})
    await ended(world, run_id)
    for path in ("/runs", f"/runs/{run_id}", f"/runs/new?from={run_id}"):
        page = (await client.get(path)).text
        assert ("<script>alert" in page, "\u202e" in page, "\x1b" in page) == (False, False, False)
        assert "&lt;script&gt;alert" in page
        assert 'href="javascript' not in page
        assert re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", page) == []
    assert "step_with…xxxxxxxx" in (await client.get(f"/runs/{run_id}")).text


async def test_the_example_is_created_once_however_often_its_form_is_sent(
    world: World, client: httpx.AsyncClient
) -> None:
    page = (await client.get("/runs/new")).text
    (text,) = re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert unescape(text) == EXAMPLE
    once = new_id()
    answers = [await send(client, EXAMPLE.replace("\n", "\r\n"), once) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert answers[0].headers["location"] == answers[1].headers["location"]
    run = await get_run(world, answers[0].headers["location"].removeprefix("/runs/"), include="details")
    assert [each["id"] for each in run["steps"]] == ["picture", "film"]
    changed = await send(client, EXAMPLE.replace("dusk", "dawn"), once)
    assert (changed.status_code, "sent before, with another text" in changed.text) == (409, True)
    assert "dawn" in changed.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '{"steps": [{"id": "a", "action": "m:t", "depends_on": ["a", "z"]}, {"id": "a", "action": "no"}]}',
            ["self_dependency", "unknown_dependency", "duplicate_step_id", "unknown_action", "steps[0].depends_on"],
        ),
        ('{"steps": ', ["JSON"]),
        ('{"steps": [], "odd": 1}', ["steps"]),
        ("", ["body"]),
        (f'{{"{HOSTILE[:25]}\u202e\t": 1}}', ["steps"]),
    ],
)
async def test_what_is_wrong_is_told_beside_the_text_that_stays(
    client: httpx.AsyncClient, text: str, told: list[str]
) -> None:
    answer = await send(client, text)
    assert answer.status_code == 400
    fault = answer.text[answer.text.index('id="faults"') :]
    assert [word for word in told if word not in fault] == []
    (kept,) = re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", answer.text, re.DOTALL)
    assert unescape(kept) == text.replace("\u202e", "\\u202e")


@pytest.mark.long
@pytest.mark.sqlite_only("a matter of the form")
async def test_a_run_may_have_8_mib_and_keeps_its_text_if_it_has_more(world: World, client: httpx.AsyncClient) -> None:
    def text(size: int) -> str:
        body: dict[str, Any] = {"steps": [{"id": "a", "action": "m:t", "input": {"x": ""}}]}
        return json.dumps(body).replace('"x": ""', f'"x": "{"q" * (size - len(json.dumps(body)))}"')

    answer = await send(client, text(MOST_RUN_BYTES))
    assert answer.status_code == 303
    page = (await client.get(answer.headers["location"])).text
    assert ("Shown in part: it has 8.4 MB." in page, len(page) < 100_000, "-d @run.json" in page) == (True, True, True)
    answer = await send(client, text(MOST_RUN_BYTES + 1))
    assert (answer.status_code, str(MOST_RUN_BYTES) in answer.text) == (413, True)
    assert "q" * 8_000_000 in answer.text
    data = {"csrf": await token_of(client, "/runs"), "run": "x" * MOST_BYTES}
    assert (await client.post("/runs/new", data=data)).status_code == 413


async def test_a_run_like_another_begins_with_its_request(world: World, client: httpx.AsyncClient) -> None:
    run_id = await begin(world, step("a"), step("b", "a", on_failure="continue"), metadata={"n": 7})
    page = (await client.get("/runs/new", params={"from": run_id})).text
    (text,) = re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    answer = await send(client, unescape(text))
    first, second = [
        await get_run(world, each, include="details")
        for each in (run_id, answer.headers["location"].removeprefix("/runs/"))
    ]
    parts = ("id", "action", "depends_on", "input", "input_map", "on_failure", "retry")
    of = [[{name: each[name] for name in parts} for each in run["steps"]] for run in (first, second)]
    assert (of[0], first["metadata"]) == (of[1], second["metadata"])


async def test_a_read_key_sees_no_controls_and_may_do_nothing(world: World, reader: httpx.AsyncClient) -> None:
    run_id = await begin(world, step("a", sandbox=HELD))
    for path in ("/runs", f"/runs/{run_id}"):
        page = (await reader.get(path)).text
        assert [word for word in ("formaction", "Create a run", "like it</a>") if word in page] == []
    assert (await reader.get("/runs/new")).status_code == 403
    assert (await send(reader, EXAMPLE)).status_code == 403
    data = {"csrf": await token_of(reader, "/runs")}
    assert (await reader.post(f"/runs/{run_id}/cancel", data=data)).status_code == 403
    assert (await get_run(world, run_id))["status"] == "in_progress"
