"""Acting on all tasks that match, and on selected ones: exact numbers, refusals, read keys, hostile text."""

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from tests.fakes.dashboard import browser, new_key, sign_in, signed_in, token_of, waiting
from tests.fakes.rows import select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\u2066\x1b[31m\"'"
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("dashboard")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


def question(kind: str, **filters: str) -> str:
    return "/bulk-actions/new?" + urlencode([("kind", kind), *filters.items()])


def form_of(page: str) -> dict[str, str]:
    """Return the hidden fields of the form of a question."""
    form = page[page.index('class="question"') :]
    return {unescape(name): unescape(value) for name, value in _HIDDEN.findall(form)}


async def progress(client: httpx.AsyncClient, path: str) -> dict[str, str]:
    """Return what the page of a bulk action says when it has ended, by its labels."""
    while True:
        page = (await client.get(path)).text
        found = re.findall(r"<dt>([^<]+)</dt><dd>(.*?)</dd>", page)
        if "<dt>Left</dt>" not in page:
            return dict(found)


async def test_the_question_has_the_exact_number_and_later_tasks_are_not_touched(
    world: World, client: httpx.AsyncClient
) -> None:
    tag = new_id()
    wanted = await waiting(world, tag, 3)
    page = (await client.get(question("cancel", **{"metadata[tag]": tag, "limit": "2"}))).text
    assert ("<h1>Cancel 3 tasks?</h1>" in page, f"metadata[tag] = {tag}" in page) == (True, True)
    later = await waiting(world, tag, 2)  # while the question is open
    fields = form_of(page)
    answers = [await client.post("/bulk-actions/new", data=fields) for _ in range(2)]
    (path,) = {answer.headers["location"] for answer in answers}
    told = (await client.get(path)).text
    assert "The bulk action began with 3 tasks." in told
    said = await progress(client, path)
    assert (said["Cancelled"], said["Refused"], said["Not acted on"]) == ("3", "0", "0")
    assert [(await world.task(each))["status"] for each in (*wanted, *later)] == ["cancelled"] * 3 + ["pending"] * 2
    assert path.rsplit("/", 1)[1] in (await client.get("/bulk-actions")).text
    assert len(select(world, f"SELECT 1 FROM bulk_action WHERE CAST(filter AS text) LIKE '%{tag}%'")) == 1


async def test_a_number_that_changed_since_it_was_said_is_explained(world: World, client: httpx.AsyncClient) -> None:
    tag = new_id()
    first, *_ = await waiting(world, tag, 2)
    page = (await client.get(question("cancel", **{"metadata[tag]": tag}))).text
    assert "<h1>Cancel 2 tasks?</h1>" in page
    assert (await world.api.post(f"/api/v1/tasks/{first}/cancel")).status_code == 200
    answer = await client.post("/bulk-actions/new", data=form_of(page))
    told = (await client.get(answer.headers["location"])).text
    assert "began with 1 task. 2 tasks were counted when you were asked: the others changed in between." in told


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("q=cat", "a search is no filter"),
        ("color=red", "color"),
        ("status=failed&status=queued", "status stands twice"),
        ("created_before=noon", "ISO 8601"),
    ],
)
@pytest.mark.sqlite_only("nothing is asked of the database")
async def test_what_is_no_filter_is_refused_and_nothing_is_counted(
    client: httpx.AsyncClient, query: str, said: str
) -> None:
    answer = await client.get(f"/bulk-actions/new?kind=cancel&{query}")
    assert (answer.status_code, said in answer.text, 'class="question"' in answer.text) == (400, True, False)
    assert (await client.get(f"/bulk-actions/new?kind=destroy&{query}")).status_code == 404


async def test_a_search_offers_no_act_on_all(world: World, client: httpx.AsyncClient) -> None:
    await world.created()
    for query, is_offered in (("", True), ("?q=flux", False)):
        page = (await client.get(f"/tasks{query}")).text
        assert ("Cancel all that match" in page, "A search is no filter" in page) == (is_offered, not is_offered)


async def test_selected_tasks_are_acted_on_and_what_is_refused_is_told(world: World, client: httpx.AsyncClient) -> None:
    ids = await waiting(world, new_id(), 2)
    over = await world.created()
    await world.ended(over)
    data: dict[str, Any] = {"csrf": await token_of(client, "/tasks"), "act": "cancel", "once": new_id()}
    data |= {f"task:{each}": "on" for each in (*ids, over)}
    page = (await client.post("/bulk-actions/selected", data=data)).text
    assert ("2 of 3 tasks were cancelled" in page, "completed" in page) == (True, True)
    assert re.findall(r'data-row="([^"]+)"', page) == [over, *ids]
    again = await client.post("/bulk-actions/selected", data={**data, "act": "retry", "once": new_id()})
    assert "2 of 3 tasks were retried" in again.text
    del data[f"task:{over}"]
    answer = await client.post("/bulk-actions/selected", data={**data, "act": "refresh", "once": new_id()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks")
    assert "2 tasks were asked about." in (await client.get("/tasks")).text
    nothing = await client.post("/bulk-actions/selected", data={"csrf": data["csrf"], "act": "cancel"})
    assert (nothing.status_code, "No task was selected." in (await client.get("/tasks")).text) == (303, True)
    assert (await client.post("/bulk-actions/selected", data={**data, "act": "destroy"})).status_code == 404


async def test_a_read_key_sees_bulk_actions_and_begins_none(world: World, client: httpx.AsyncClient) -> None:
    tag = new_id()
    (task,) = await waiting(world, tag, 1)
    path = question("refresh", **{"metadata[tag]": tag})
    answer = await client.post("/bulk-actions/new", data=form_of((await client.get(path)).text))
    async with browser(world) as reader:
        await sign_in(reader, str((await new_key(world, "read"))["key"]))
        page = (await reader.get("/tasks")).text
        assert ('type="checkbox" name="task:' in page, "all that match" in page) == (False, False)
        assert answer.headers["location"] in (await reader.get("/bulk-actions")).text
        assert (await reader.get(answer.headers["location"])).status_code == 200
        assert (await reader.get(path)).status_code == 403
        token = await token_of(reader, "/tasks")
        filters = {"csrf": token, "kind": "cancel", "metadata[tag]": tag}
        for where, data in (
            ("new", filters),
            ("selected", {"csrf": token, "act": "cancel", f"task:{task}": "on"}),
            (f"{answer.headers['location'].rsplit('/', 1)[1]}/cancel", {"csrf": token}),
        ):
            assert (await reader.post(f"/bulk-actions/{where}", data=data)).status_code == 403
    assert (await world.task(task))["status"] == "pending"


async def test_what_strangers_send_is_escaped_in_filters_and_searches(world: World, client: httpx.AsyncClient) -> None:
    await world.api.post("/api/v1/task", json={"model": "m", "task_type": "t", "input": {}, "metadata": {"a": HOSTILE}})
    filters = f"metadata%5B{quote(HOSTILE)}%5D={quote(HOSTILE)}"
    found = await client.get(f"/tasks?q={quote(HOSTILE)}")
    begun = await client.post(
        "/bulk-actions/new", data=form_of((await client.get(f"/bulk-actions/new?kind=cancel&{filters}")).text)
    )
    assert begun.headers["location"].startswith("/bulk-actions/0")
    for page in (
        found,
        await client.get(f"/tasks?{filters}"),
        await client.get(f"/bulk-actions/new?kind=cancel&{filters}"),
        await client.get(f"/bulk-actions/new?kind=cancel&{quote(HOSTILE)}=1"),
        await client.get(begun.headers["location"]),
        await client.get("/bulk-actions"),
    ):
        shown = page.text
        assert ("<script>alert" in shown, "&lt;script&gt;alert(1)" in shown) == (False, True), page.url
        assert not set("\u202e\u2066\x1b") & set(shown)
        assert r"\u202egnp.exe\u2066\x1b[31m" in shown
