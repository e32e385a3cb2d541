"""The pages of what came in, without a browser: what they show of receipts, and whom they show it."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from receiver.dashboard.documents import text_document
from receiver.domain.ids import new_id
from tests.fakes.dashboard import browser, new_key, rows, sign_in, signed_in, token_of
from tests.fakes.inbound import PICTURE, SILENT, hook_secret, post, report
from tests.fakes.organizations import another_organization
from tests.fakes.world import World, in_process
from tests.integration.test_dashboard_pages import HOSTILE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("inbound")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


async def receipts(world: World, task: str) -> list[str]:
    """Make a conflicting receipt of a task and a malformed one; return their ids, newest first."""
    await report(world, task, "completed", output=PICTURE)
    await report(world, task, "failed")
    await post(world, task, content=b"{no JSON " + HOSTILE.encode())
    answer = await world.api.get("/api/v1/receipts", params={"task_id": task})
    return [each["id"] for each in answer.json()["data"]["data"]]


async def test_the_list_has_every_filter_in_its_url(world: World, client: httpx.AsyncClient) -> None:
    task = await world.created(SILENT)
    malformed, conflicting = await receipts(world, task)
    assert rows((await client.get("/inbound", params={"task_id": task})).text) == [malformed, conflicting]
    page = (await client.get("/inbound", params={"task_id": task, "reason": "malformed"})).text
    assert rows(page) == [malformed]
    assert f'href="/inbound?task_id={task}"' in page  # the tab of all
    assert rows((await client.get("/inbound", params={"task_id": task, "limit": "1"})).text) == [malformed]
    answer = await client.get("/inbound", params={"reason": "", "provider": "piapi"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/inbound?provider=piapi")
    for query in ("reason=odd", "received_after=noon", f"task_id={new_id()}"):
        answer = await client.get(f"/inbound?{query}")
        assert (answer.status_code >= 400, "This filter does not work" in answer.text) == (True, True)


async def test_a_receipt_shows_its_body_as_text_and_never_the_secret(world: World, client: httpx.AsyncClient) -> None:
    task = await world.created(SILENT)
    await report(world, task, "completed", output=PICTURE)
    body = {"message": HOSTILE, "seed": 9007199254740993, "secret": hook_secret(world, task)}
    await report(world, task, "failed", error={"code": 1, "message": HOSTILE, "detail": body})
    found = (await world.api.get("/api/v1/receipts", params={"task_id": task})).json()["data"]["data"]
    page = (await client.get(f"/inbound/{found[0]['id']}")).text
    assert ("9007199254740993" in page, "\\u202egnp.exe" in page) == (True, True)
    assert not set("\u202e\u2066\x1b") & set(page)
    assert ("<script>alert" in page, hook_secret(world, task) in page) == (False, False)
    assert f'href="/tasks/{task}"' in page
    file = await client.get(f"/inbound/{found[0]['id']}/file")
    assert file.headers["content-disposition"].startswith("attachment")
    assert (file.headers["x-content-type-options"], "9007199254740993" in file.text) == ("nosniff", True)


async def test_a_body_that_is_no_json_is_shown_as_it_is(world: World, client: httpx.AsyncClient) -> None:
    malformed, _ = await receipts(world, await world.created(SILENT))
    page = (await client.get(f"/inbound/{malformed}")).text
    assert ("{no JSON &lt;script&gt;" in page, "<script>alert" in page) == (True, False)
    assert not set("\u202e\u2066\x1b") & set(page)


async def test_documents_keep_what_no_number_type_holds() -> None:
    text = '{"a": 123456789012345678901234567890, "b": 0.12345678901234567890123, "c": [1e400]}'
    shown = re.sub(r"<[^>]+>", "", text_document(text).markup)
    assert all(number in shown for number in ("123456789012345678901234567890", "0.12345678901234567890123", "1e400"))
    for text in ('{"a": NaN}', "[" * 300 + "]" * 300, "[" * 200_000, '"\\ud800"', "", "\x00\x1b[31m<b>"):
        assert "\x1b" not in text_document(text).markup


async def test_the_button_looks_at_the_task(world: World, client: httpx.AsyncClient) -> None:
    task = await world.created({"outcome": "completed", "webhook": "lost"})
    await post(world, task, content=b"no task")
    (receipt,) = (await world.api.get("/api/v1/receipts", params={"task_id": task})).json()["data"]["data"]
    path = f"/inbound/{receipt['id']}"
    assert f'action="/tasks/{task}/refresh"' in (await client.get(path)).text
    data = {"csrf": await token_of(client, path), "once": new_id(), "back": path}
    assert (await client.post(f"/tasks/{task}/refresh", data=data)).headers["location"] == path
    assert "The task was looked at" in (await client.get(path)).text


async def test_a_read_key_sees_no_button_and_another_organization_sees_nothing(world: World) -> None:
    malformed, _ = await receipts(world, await world.created(SILENT))
    async with browser(world) as reader:
        await sign_in(reader, (await new_key(world, "read"))["key"])
        page = (await reader.get(f"/inbound/{malformed}")).text
        assert ("In words" in (await reader.get("/inbound")).text, "Look at the task now" in page) == (True, False)
        assert "since this service started" in (await reader.get("/inbound")).text
    async with browser(world) as other:
        await sign_in(other, another_organization(world)["x-api-key"])
        page = (await other.get("/inbound")).text
        assert rows(page) == []
        assert ("ringback doctor" in page, "since this service started" in page) == (True, False)
        for path in (f"/inbound/{malformed}", f"/inbound/{malformed}/file"):
            assert (await other.get(path)).status_code == 404
