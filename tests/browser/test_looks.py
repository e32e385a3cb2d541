"""How each page looks: light, dark, wide and on a phone, without what keeps people out. Pictures are in `.shots`."""

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visitor, check_access, each_look, shoot
from tests.browser.test_inbound import not_applied
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
        await _bulk_pages(page, look)
    await page.keyboard.press("?")
    await shoot(page, "help")
    await check_access(page)
    await page.goto("/tasks?limit=0")
    await shoot(page, "tasks-fault")
    await check_access(page)


async def test_what_came_in_is_legible_in_every_look(world: World, visit: Visitor) -> None:
    page = await visit("/inbound?provider=another")
    await shoot(page, "inbound-empty")
    await check_access(page)
    receipts = await not_applied(world)
    await page.goto("/inbound")
    async with each_look(page) as look:
        await look("inbound")
        await page.goto(f"/inbound/{receipts[0]}")
        await look("receipt")
    await page.goto(f"/inbound/{receipts[-1]}")
    await shoot(page, "receipt-malformed")
    await check_access(page)


async def test_the_pages_of_administrators_are_legible_in_every_look(world: World, visit: Visitor) -> None:
    for name, scope in (("ci", "write"), ("grafana", "read"), ("a key with quite a long name for one", "admin")):
        await world.api.post("/api/v1/keys", json={"name": name, "scope": scope, "expires_at": "2999-01-31"})
    made = (await world.api.post("/api/v1/organizations", json={"name": "acme", "limits": {"webhooks": 5}})).json()
    organization = made["data"]["id"]
    limits = {"webhooks": 500, "streams": "unlimited", "open_tasks": 1}
    await world.api.patch(f"/api/v1/organizations/{organization}", json={"limits": limits})
    webhook = await world.webhook(description="first")
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"description": "second", "is_active": False})
    page = await visit("/keys")
    async with each_look(page) as look:
        await look("keys")
        await page.get_by_text("Make a key").click()
        await look("keys-make")
        await page.get_by_role("textbox", name="Name").fill("worker")
        await page.get_by_role("button", name="Make the key").click()
        await look("key-made")
        await page.goto("/keys")
        await page.get_by_role("link", name="Revoke RINGBACK_API_KEY").click()
        await look("key-revoke")
        await page.goto("/organizations")
        await look("organizations")
        await page.goto(f"/organizations/{organization}")
        await look("organization")
        await page.goto("/audit")
        await look("audit")
    page = await visit("/organizations", key=made["data"]["key"])
    await shoot(page, "organization-own")
    await check_access(page)


async def _bulk_pages(page: Page, look: Callable[[str], Awaitable[None]]) -> None:
    """Select tasks, ask for all that match, and look at what became of them."""
    await page.goto("/tasks")
    await page.get_by_role("button", name="Select all on this page").click()
    await look("tasks-selected")
    await page.get_by_role("button", name="Retry selected").click()
    await look("tasks-refused")
    await page.goto("/tasks?status=pending")
    await page.locator(".row-link").click()
    await look("task-open")
    await page.goto("/tasks")
    await page.locator("#all summary").click()
    await shoot(page, "tasks-all-that-match")
    await check_access(page)
    await page.get_by_role("link", name="Cancel all that match").click()
    await look("bulk-question")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#head .state")).to_have_text("done")
    await look("bulk-action")
    await page.goto("/bulk-actions")
    await look("bulk-actions")


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
