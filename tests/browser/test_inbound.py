"""The pages of what came in, in a browser: a receipt appears by itself, and leads to its task."""

import pytest
from playwright.async_api import expect

from receiver.dashboard import inbound
from tests.browser.conftest import Visitor
from tests.fakes.inbound import PICTURE, SILENT, post, report
from tests.fakes.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("test_pages looks at both databases")]


async def not_applied(world: World) -> list[str]:
    """Make receipts of several kinds; return the ids of all, newest first."""
    task = await world.created(SILENT)
    await post(world, task, content=b"<html><body>502 Bad Gateway</body></html>")
    await report(world, task, "completed", output=PICTURE)
    await report(world, task, "failed", error={"code": 1, "message": "out of memory"})
    await post(world, task, content=b"x", secret="wrong")
    again = await world.created(SILENT, retry={"max_attempts": 2, "backoff_seconds": 0})
    provider_task_id = (await world.task(again))["provider_task_id"]
    await report(world, again, "failed", error={"code": 1, "message": "busy"})
    late = {"task_id": provider_task_id, "status": "completed", "output": PICTURE}
    await post(world, again, json={"timestamp": 1, "data": {"model": "m", "task_type": "t", **late}})
    found = (await world.api.get("/api/v1/receipts")).json()["data"]["data"]
    return [each["id"] for each in found]


async def test_a_receipt_appears_and_leads_to_its_task(
    visit: Visitor, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "EVERY_SECONDS", 1)
    task = await world.created({"outcome": "completed", "webhook": "lost", "pending_seconds": 60})
    page = await visit(f"/inbound?task_id={task}")
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    await post(world, task, content=b"no task")
    await expect(page.locator("[data-row]")).to_have_count(1)
    await page.get_by_label("Reason").get_by_role("link", name="superseded").click()
    await expect(page.get_by_role("heading", name="No receipt matches")).to_be_visible()
    await page.go_back()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/inbound/*-*")
    await expect(page.get_by_role("region", name="Body")).to_have_text("no task")
    await page.get_by_role("button", name="Look at the task now").click()
    await expect(page.get_by_role("status")).to_contain_text("The task was looked at")
    await page.get_by_role("link", name=task).click()
    await page.wait_for_url(f"**/tasks/{task}")
