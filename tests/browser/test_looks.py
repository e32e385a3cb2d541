"""How each page looks: light, dark, wide and on a phone, without what keeps people out. Pictures are in `.shots`."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visitor, check_access, each_look, shoot
from tests.fakes.ports import free_port
from tests.fakes.world import World

# The database changes nothing of how a page looks.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("looks"), pytest.mark.long]


async def test_each_page_is_legible_in_every_look(world: World, visit: Visitor) -> None:
    page = await visit("/sign-in", key=None)
    async with each_look(page) as look:
        await look("sign-in")
    page = await visit("/tasks")
    await shoot(page, "tasks-empty")
    await check_access(page)
    for name in ("overview", "events"):
        await page.goto(f"/{name}")
        await shoot(page, f"{name}-empty")
        await check_access(page)
    task = await _history(world)
    await page.goto("/overview")
    await expect(page.locator(".number-line .line-total").first).to_have_text("13", timeout=20_000)
    async with each_look(page) as look:
        await look("overview")
        await page.goto("/events")
        await page.locator(".log summary").nth(2).click()
        await look("events")
        await page.goto("/events?event_types=run.failed&model=none")
        await page.locator("#types summary").click()
        await shoot(page, "events-filters")
        await check_access(page)
    await page.goto("/tasks")
    async with each_look(page) as look:
        await look("tasks")
        await page.goto(
            "/tasks?columns=model&columns=progress&columns=metadata&columns=error&metadata%5Bcustomer%5D=42"
        )
        await page.locator("#filters summary").click()
        await look("tasks-filters")
        await page.goto(f"/tasks/{task}?raw=1")
        await look("task")
    await page.keyboard.press("?")
    await shoot(page, "help")
    await check_access(page)
    await page.goto("/tasks?limit=0")
    await shoot(page, "tasks-fault")
    await check_access(page)


async def _history(world: World) -> str:
    """Make tasks in several states; return one that several attempts failed."""
    await world.webhook()
    await world.webhook(endpoint_url=f"http://127.0.0.1:{free_port()}/hooks/orders")
    await world.created({"duration": 60, "progress": 3}, metadata={"customer": 42, "plan": "pro"})
    await world.created({"outcome": "failed"}, model="kling", task_type="video_generation")
    await world.created({"pending_seconds": 60})
    script = {"outcome": "failed", "duration": 0.1, "progress": 2}
    retry = {"max_attempts": 2, "backoff_seconds": 0.1}
    task = await world.created(script, retry=retry, metadata={"customer": 42, "order": "A-1024"})
    for number in range(9):
        await world.created(metadata={"n": number})
    await world.ended(task)
    return task
