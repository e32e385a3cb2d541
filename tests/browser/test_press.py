"""What a reader is pressing while a live page is replaced is not lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, expect

from receiver.dashboard.templates import short_id
from tests.browser.conftest import Visitor
from tests.fakes.inbound import PICTURE, SILENT, post, report
from tests.fakes.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("test_pages looks at both databases")]


async def live(visit: Visitor, path: str) -> Page:
    page = await visit(path)
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    return page


@asynccontextmanager
async def replaced(page: Page, path: str) -> AsyncIterator[None]:
    """Do what the block does; return when the page has asked for itself because of that, and could have shown it."""
    async with page.expect_response(f"**{path}") as looked:
        yield
    await (await looked.value).finished()
    await page.evaluate("new Promise(requestAnimationFrame)")


async def test_a_click(visit: Visitor, world: World) -> None:
    task = await world.created(SILENT)
    await post(world, task, content=b"no task")
    receipt = (await world.api.get("/api/v1/receipts")).json()["data"]["data"][0]["id"]
    page = await live(visit, f"/inbound/{receipt}")
    await page.get_by_role("link", name=task).hover()
    await page.mouse.down()
    async with replaced(page, f"/inbound/{receipt}"):
        await report(world, task, "completed", output=PICTURE)
    await page.mouse.up()
    await page.wait_for_url(f"**/tasks/{task}")


async def test_a_button_that_is_pressed_by_the_space_key(visit: Visitor, world: World) -> None:
    task = await world.created(SILENT)
    page = await live(visit, "/tasks")
    await page.get_by_role("button", name=f"Refresh {short_id(task)}").focus()
    await page.keyboard.down(" ")
    async with replaced(page, "/tasks"):
        await world.created(SILENT)
    await page.keyboard.up(" ")
    await expect(page.get_by_role("status")).to_contain_text("The task was looked at")
