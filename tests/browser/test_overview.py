"""The overview in a browser: it follows what happens, and does not ask for itself at each event."""

from itertools import pairwise

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visitor
from tests.fakes.world import World

LOOKS = """performance.getEntriesByType("resource").filter(each => each.name.endsWith("/overview"))
    .map(each => each.startTime)"""
"""When the page asked for itself, in milliseconds."""

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("test_pages looks at both databases")]


async def test_it_follows_many_events_with_few_looks_and_leads_to_the_tasks(visit: Visitor, world: World) -> None:
    page = await visit("/overview")
    live = page.get_by_role("button", name="Live: pause")
    await expect(live).to_have_attribute("data-is", "live")
    for _ in range(20):
        await world.created({"pending_seconds": 60})
    await expect(page.get_by_role("link", name="20 tasks are pending")).to_be_visible()
    await expect(page.locator(".number-line .line-total").first).to_have_text("20", timeout=20_000)
    looks = await page.evaluate(LOOKS)
    assert len(looks) > 1
    assert all(after - before > 1900 for before, after in pairwise(looks)), looks
    await page.get_by_role("link", name="20 tasks are pending").click()
    await page.wait_for_url("**/tasks?status=pending")
    await page.go_back()
    await page.get_by_role("link", name="7 days").click()
    await page.wait_for_url("**/overview?range=7d")
    await expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "true")
    await page.keyboard.press("g")
    await page.keyboard.press("e")
    await page.wait_for_url("**/events")
