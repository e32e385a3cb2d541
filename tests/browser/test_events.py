"""The log of events in a browser: live, paused, resumed, and what a reader has opened."""

import pytest
from playwright.async_api import expect

from receiver.domain.ids import new_id
from tests.browser.conftest import Visitor
from tests.browser.test_pages import HOSTILE
from tests.fakes.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("test_pages looks at both databases")]


async def test_new_events_appear_until_it_is_paused_and_then_what_was_missed(visit: Visitor, world: World) -> None:
    model = f"model-{new_id()[-8:]}"
    first = await world.created({"pending_seconds": 60}, model=model)
    page = await visit(f"/events?model={model}&event_types=task.created")
    rows = page.locator("[data-row]")
    await expect(rows).to_have_count(1)
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="Data of task.created")).to_contain_text(first)
    second = await world.created({"pending_seconds": 60}, model=model)
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text(second[-12:])
    await expect(rows.last.get_by_role("region")).to_be_visible()  # what was opened stays so
    await expect(rows.last.locator("summary")).to_be_focused()
    await page.keyboard.press("p")
    await expect(page.get_by_role("button", name="Paused: go on")).to_be_visible()
    missed = [await world.created({"pending_seconds": 60}, model=model) for _ in range(3)]
    await expect(rows).to_have_count(2)
    await page.keyboard.press("p")
    await expect(rows).to_have_count(5)
    for row, task in zip(range(3), missed[::-1], strict=True):
        await expect(rows.nth(row)).to_contain_text(task[-12:])
    await page.set_viewport_size({"width": 1280, "height": 300})
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    before = await rows.last.bounding_box()
    newest = await world.created({"pending_seconds": 60}, model=model)
    await expect(rows.first).to_contain_text(newest[-12:])
    after = await rows.last.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["y"] - after["y"]) < 2  # what is read stays where it is
    await rows.nth(1).get_by_role("link", name=missed[-1][-12:]).click()
    await page.wait_for_url(f"**/tasks/{missed[-1]}")


async def test_filters_are_in_the_url_and_older_pages_are_not_live(visit: Visitor, world: World) -> None:
    task = await world.created(model=HOSTILE)
    await world.ended(task)
    page = await visit("/events", java_script_enabled=False)
    await page.get_by_label("Search").fill(task)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/events?task_id={task}")
    await page.locator("#types summary").click()
    await page.get_by_role("checkbox", name="task.completed").check()
    await page.get_by_role("checkbox", name="task.created").check()
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("[data-row]")).to_have_count(2)
    await expect(page.locator("[data-row]").first).to_contain_text("<script>alert(2)</script>\\u202egnp.exe")
    await page.locator("[data-row] summary").first.click()
    await expect(page.get_by_role("region", name="Data of task.completed")).to_contain_text("\\u202egnp.exe")
    await page.get_by_label("Remove the filter event_types").click()
    await page.wait_for_url(f"**/events?task_id={task}")
    await page.goto(f"/events?task_id={task}&limit=1")
    await page.get_by_role("link", name="Older").click()
    await expect(page.get_by_role("link", name="Newest")).to_be_visible()
    await expect(page.locator("main[data-live]")).to_have_count(0)
    await page.go_back()
    await page.get_by_label("Kind of event").get_by_role("link", name="System").click()
    await expect(page.get_by_role("heading", name="No event matches")).to_be_visible()
