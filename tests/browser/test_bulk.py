"""Acting on many tasks in a browser, and a task's page that follows what comes next."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from receiver.domain.ids import new_id
from tests.browser.conftest import Visitor
from tests.browser.test_pages import HOSTILE, key_of, row
from tests.fakes.dashboard import waiting
from tests.fakes.inbound import SILENT, report
from tests.fakes.pipeline import HELD
from tests.fakes.rows import change
from tests.fakes.world import World, in_process

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("test_pages looks at both databases")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    """A world that takes large webhooks."""
    async with in_process(tmp_path_factory.mktemp("browser"), max_body_bytes="16777216") as world:
        yield world


def accept_dialogs(page: Page) -> None:
    page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))


async def value(page: Page, label: str) -> str:
    fact = page.locator("#progress .facts > div", has=page.get_by_text(label, exact=True))
    return await fact.locator("dd").inner_text()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_all_that_match_are_cancelled_and_no_more_than_was_said(
    visit: Visitor, world: World, scripts: bool
) -> None:
    tag = new_id()[-8:]
    await waiting(world, tag, 3)
    page = await visit(f"/tasks?metadata%5Btag%5D={tag}", java_script_enabled=scripts)
    await page.locator("#all summary").click()
    await page.get_by_role("link", name="Cancel all that match").click()
    await expect(page.get_by_role("heading", name="Cancel 3 tasks?")).to_be_visible()
    later = (await waiting(world, tag, 2))[0]  # while the question is open
    await page.get_by_role("button", name="Cancel 3 tasks").click()
    await expect(page.get_by_role("status")).to_contain_text("The bulk action began with 3 tasks.")
    while not scripts and "running" in await page.locator("#head").inner_text():
        await page.reload()
    await expect(page.locator("#head .state")).to_have_text("done")
    assert [await value(page, label) for label in ("Cancelled", "Refused", "Not acted on")] == ["3", "0", "0"]
    assert (await world.task(later))["status"] == "pending"
    await page.get_by_role("link", name="Show those that match now").click()
    await expect(page.locator("[data-row]")).to_have_count(3)


async def test_a_bulk_action_is_followed_to_its_end_and_can_be_stopped(visit: Visitor, world: World) -> None:
    tag = new_id()
    await world.created(HELD, metadata={"tag": tag})
    uid = (await world.api.post("/api/v1/tasks/cancel", json={"metadata": {"tag": tag}})).json()["data"]["id"]
    change(world, f"UPDATE bulk_action SET status = 'running', matched = 9, due_at = created_at WHERE uid = '{uid}'")
    change(world, f"UPDATE bulk_action SET due_at = '2100-01-01 00:00:00.000000', ended_at = NULL WHERE uid = '{uid}'")
    page = await visit(f"/bulk-actions/{uid}")
    await expect(page.locator("#head .state")).to_have_text("running")
    change(world, f"UPDATE bulk_action SET done = 4 WHERE uid = '{uid}'")
    await expect(page.locator("#progress")).to_contain_text(re.compile(r"Cancelled\s*4"))  # without any event
    accept_dialogs(page)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("#head .state")).to_have_text("cancelled")
    await expect(page.locator("#progress")).to_contain_text("It was stopped before their turn came.")
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)


async def test_rows_are_selected_by_keys_and_stay_so_while_the_list_changes(visit: Visitor, world: World) -> None:
    tag = new_id()[-8:]
    first, second = await waiting(world, tag, 2)
    page = await visit(f"/tasks?metadata%5Btag%5D={tag}")
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    await expect(page.get_by_role("button", name="Cancel selected")).to_be_hidden()
    await page.keyboard.press("j")
    await page.keyboard.press("x")
    await expect(page.get_by_role("group", name="Selected tasks")).to_contain_text("1 selected")
    third = await world.created(HELD, metadata={"tag": tag})
    await expect(page.locator(row(page, third))).to_contain_text("processing")
    await expect(page.locator(row(page, second)).get_by_role("checkbox")).to_be_checked()
    await expect(page.locator(row(page, third)).get_by_role("checkbox")).not_to_be_checked()
    await page.get_by_role("button", name="Select all on this page").click()
    accept_dialogs(page)
    await page.get_by_role("button", name="Cancel selected").click()
    await expect(page.get_by_role("heading", name="2 of 3 tasks were cancelled")).to_be_visible()
    await expect(page.locator(row(page, third))).to_contain_text("only a pending task can be cancelled")
    assert [(await world.task(each))["status"] for each in (first, second)] == ["cancelled"] * 2
    await page.get_by_role("link", name="Back to the tasks").click()
    await page.wait_for_url(f"**/tasks?metadata%5Btag%5D={tag}")


async def test_a_task_s_page_says_what_comes_next_and_looks_when_it_has_come(visit: Visitor, world: World) -> None:
    (task,) = await waiting(world, new_id(), 1)
    page = await visit(f"/tasks/{task}")
    await expect(page.locator("#next")).to_contain_text(
        re.compile("The provider is asked about it, unless a webhook comes first.*in 1?[0-9] s")
    )
    change(world, f"UPDATE task SET due_at = created_at WHERE uid = '{task}'")
    await page.reload()
    await expect(page.locator("#timeline .steps")).to_contain_text("The provider was asked once, without news.")
    for name in ("Refresh it at the provider", "Cancel it"):
        await expect(page.get_by_role("region", name=name)).to_contain_text("curl -X POST")
    await expect(page.get_by_role("region", name="Retry it")).to_have_count(0)


async def test_a_search_leads_to_a_task_or_to_what_has_the_text(visit: Visitor, world: World) -> None:
    text = HOSTILE.replace("=", " ")  # key=value is a filter by metadata
    task = await world.created(metadata={"customer": text})
    page = await visit("/tasks")
    await page.get_by_label("Search").fill(text)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/tasks?q=**")
    await expect(page.get_by_role("list", name="Filters")).to_contain_text("search = <img src x onerror alert(1)>")
    await expect(page.get_by_role("list", name="Filters")).to_contain_text("\\u202egnp.exe\\u2066\\x1b[31m")
    await page.get_by_label("Search").fill(task)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/tasks/{task}")


async def test_ten_megabytes_of_output_are_shown_in_part(visit: Visitor, world: World) -> None:
    task = await world.created(SILENT)
    output = {"image_url": "https://example.com/a.png", "picture": "A" * 10_000_000, "last": "the-end"}
    assert (await report(world, task, "completed", output=output)).status_code == 200
    page = await visit(f"/tasks/{task}")
    await expect(page.locator("#output")).to_contain_text("Shown in part: it has 10.0 MB.")
    await expect(page.get_by_role("region", name="Output")).to_contain_text("(10,000,000 characters)")
    assert len(await page.content()) < 100_000


async def test_a_read_key_sees_no_selection_and_what_others_began(visit: Visitor, world: World) -> None:
    await world.api.post("/api/v1/tasks/refresh", json={"metadata": {"none": new_id()}})
    page = await visit("/tasks", key=await key_of(world, "read"))
    await expect(page.get_by_role("checkbox", name="Select")).to_have_count(0)
    await page.locator("#all summary").click()
    await expect(page.locator("#all a")).to_have_count(1)
    await page.get_by_role("link", name="Bulk actions").click()
    await page.locator(".row-link").first.click()
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    assert (await value(page, "Begun by")) != ""
