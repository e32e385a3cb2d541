"""How each page looks: light, dark, wide and on a phone, without what keeps people out. Pictures are in `.shots`."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect
from starlette.requests import Request
from starlette.responses import Response

from receiver.clock import utc_now
from tests.browser.conftest import PHONE, WIDE, Visitor, check_access, each_look, shoot
from tests.browser.test_inbound import not_applied
from tests.fakes.ports import free_port
from tests.fakes.world import World

# The database changes nothing of how a page looks.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("looks"), pytest.mark.long]


@pytest.mark.large("looks at each page in light and dark, wide and on a phone")
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


@pytest.mark.large("looks at each page in light and dark, wide and on a phone")
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


@pytest.mark.large("looks at each page in light and dark, wide and on a phone")
async def test_the_pages_of_administrators_are_legible_in_every_look(world: World, visit: Visitor) -> None:
    for name, scope in (("ci", "write"), ("grafana", "read"), ("a key with quite a long name for one", "admin")):
        await world.api.post("/api/v1/keys", json={"name": name, "scope": scope, "expires_at": "2999-01-31"})
    made = (await world.api.post("/api/v1/organizations", json={"name": "acme", "limits": {"webhooks": 5}})).json()
    organization = made["data"]["id"]
    limits = {"webhooks": 500, "streams": "unlimited", "open_tasks": 1}
    await world.api.patch(f"/api/v1/organizations/{organization}", json={"limits": limits})
    account = {"name": "production", "credentials": {"api_key": "a-key-2Zk7Hs9Ya4"}, "concurrency": 5}
    await world.api.post("/api/v1/providers/fal/accounts", json={**account, "is_default": True})
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
        await page.goto("/providers")
        await look("providers")
        await page.get_by_role("link", name="production").click()
        await look("provider-account")
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


@pytest.mark.large("looks at each page in light and dark, wide and on a phone")
async def test_webhooks_and_deliveries_are_legible_in_every_look(world: World, visit: Visitor) -> None:
    page = await visit("/webhooks")
    for path in ("/webhooks", "/deliveries"):
        await page.goto(path)
        await shoot(page, f"{path[1:]}-empty")
        await check_access(page)
    webhook, dead, pending = await _sent(world)
    async with each_look(page) as look:
        for path, name in (
            ("/webhooks", "webhooks"),
            (f"/webhooks/{webhook}?range=1h&limit=6", "webhook"),
            ("/deliveries?limit=12", "deliveries"),
            (f"/deliveries/{dead}", "delivery"),
        ):
            await page.goto(path)
            await look(name)
    await page.set_viewport_size(PHONE)
    for path, name in (
        ("/webhooks/new", "webhook-new"),
        (f"/webhooks/{webhook}/change", "webhook-change"),
        (f"/webhooks/{webhook}/replay", "webhook-replay"),
        (f"/webhooks/{webhook}/remove", "webhook-remove"),
        (f"/deliveries/{pending}", "delivery-pending"),
    ):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        await shoot(page, name)
        await check_access(page)
    await page.set_viewport_size(WIDE)
    for path, button in (
        (f"/webhooks/{webhook}/test", "Send a ping"),
        (f"/webhooks/{webhook}/rotate", "Change the secret"),
    ):
        await page.goto(path)
        await page.get_by_role("button", name=button).click()
        await page.get_by_role("heading", level=1).wait_for()
        await shoot(page, path.replace("/", "-").replace(webhook, "done").strip("-"))
        await check_access(page)


async def _sent(world: World) -> tuple[str, str, str]:
    """Make webhooks of every health; return one that was sent much, a delivery that is dead, and one that waits."""

    def answer(number: int, request: Request) -> Response:
        if request.url.path == "/shop":
            return Response('{"received": true}', 500 if number % 5 == 0 else 202)
        return Response("<h1>503 Service Unavailable</h1>\nno backend", 410 if request.url.path == "/gone" else 503)

    world.subscriber.answer = answer
    base = world.subscriber.base
    shop = await world.webhook(
        endpoint_url=f"{base}/shop",
        event_types=["task.*", "run.completed"],
        headers={"X-Shop": "v"},
        description="the shop",
        filters={"metadata": {"plan": ["pro", "team"]}},
        rate_limit=100,
    )
    down = await world.webhook(endpoint_url=f"{base}/down/{'long-' * 20}path", event_types=["task.failed"])
    gone = await world.webhook(endpoint_url=f"{base}/gone", event_types=["task.completed"])
    off = await world.webhook(endpoint_url=f"{base}/off", event_types=["system.*"], signature="v1a")
    await world.api.patch(f"/api/v1/webhooks/{off['id']}", json={"is_active": False})
    for outcome in ("completed", "failed") * 6:
        task = await world.created({"outcome": outcome}, metadata={"plan": "pro"})
        await world.ended(task)
    query = {"webhook_id": down["id"], "limit": 1}
    while not (dead := (await _list(world, "/deliveries", {**query, "status": "dead"}))):
        await world.api.get("/readyz")
    while (await world.api.get(f"/api/v1/webhooks/{shop['id']}/stats")).json()["data"]["deliveries"]["attempts"] < 30:
        await world.api.get("/readyz")
    since = (utc_now() - timedelta(hours=1)).isoformat()
    for kind in ("replay", "recover"):
        asked = await world.api.post(f"/api/v1/webhooks/{shop['id']}/{kind}", json={"since": since})
        assert asked.status_code == 202, asked.text
    pending = await _list(world, "/deliveries", {"webhook_id": gone["id"], "status": "pending"})
    return shop["id"], dead[0]["id"], pending[0]["id"]


async def _list(world: World, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    return list((await world.api.get(f"/api/v1{path}", params=query)).json()["data"]["data"])
