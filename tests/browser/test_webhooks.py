"""Webhooks and deliveries in a browser: what a person does with them, live, and without scripts."""

import pytest
from playwright.async_api import expect
from starlette.responses import Response

from receiver.domain.ids import new_id
from tests.browser.conftest import Visitor
from tests.browser.test_pages import HOSTILE
from tests.fakes.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("test_pages looks at both databases")]


async def test_a_webhook_is_added_with_a_secret_that_is_shown_once(visit: Visitor, world: World) -> None:
    page = await visit("/webhooks", permissions=["clipboard-read", "clipboard-write"])
    await page.get_by_role("link", name="Add a webhook").click()
    await page.get_by_label("URL").fill("nonsense")
    await page.get_by_role("button", name="Add").click()
    await expect(page.get_by_role("alert")).to_contain_text("endpoint_url")
    url = f"{world.subscriber.base}/{new_id()}"
    await page.get_by_label("URL").fill(url)
    await page.get_by_label("task.created").check()
    await page.get_by_role("button", name="Add").click()
    await page.get_by_role("button", name="Copy").click()
    secret = await page.evaluate("navigator.clipboard.readText()")
    assert secret.startswith("whsec_")
    await page.get_by_role("link", name="I have it").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(url)
    assert secret not in await page.content()
    await page.get_by_role("link", name="Test").click()
    await page.get_by_role("button", name="Send a ping").click()
    await expect(page.get_by_role("status")).to_contain_text("accepted")
    await page.get_by_role("link", name="Back", exact=True).click()
    page.on("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Disable").click()
    await expect(page.locator("#head .state")).to_have_text("off")
    await page.get_by_role("button", name="Enable").click()
    await expect(page.locator("#head .state")).to_have_text("healthy")


async def test_deliveries_are_followed_filtered_and_sent_again(visit: Visitor, world: World) -> None:
    webhook = await world.webhook(event_types=["task.completed"], endpoint_url=f"{world.subscriber.base}/{new_id()}")
    page = await visit(f"/webhooks/{webhook['id']}")
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    world.subscriber.answer = lambda _number, _request: Response(HOSTILE, 503)
    task = (await world.ended(await world.created()))["task_id"]
    await expect(page.locator("#list [data-row]")).to_contain_text("pending")
    world.subscriber.answer = lambda _number, _request: 200
    await expect(page.locator("#list [data-row]")).to_contain_text("delivered")  # no event tells of it
    await page.get_by_label("State").get_by_role("link", name="dead").click()
    await expect(page.get_by_text("None matches.")).to_be_visible()
    await page.go_back()
    await expect(page.locator("#list [data-row]")).to_have_count(1)
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/deliveries/*")
    await expect(page.locator("#attempts")).to_contain_text("HTTP 503")
    await page.get_by_text("Answer").first.click()
    await expect(page.locator(".try-answer").first).to_contain_text("<script>alert(2)</script>\\u202egnp.exe")
    assert await page.evaluate("document.querySelectorAll('main script, main img').length") == 0
    await page.get_by_role("button", name="Send again").click()
    await expect(page.get_by_role("status")).to_contain_text("it is sent again now")
    await page.goto("/deliveries")
    await page.get_by_label("Search").fill(task)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/deliveries?task_id={task}")
    await expect(page.locator("[data-row]", has_text=webhook["endpoint_url"])).to_have_count(1)


async def test_without_scripts_what_was_given_up_is_sent_again_and_a_webhook_removed(
    visit: Visitor, world: World
) -> None:
    url = f"{world.subscriber.base}/{new_id()}"
    filters = {"metadata": {"tag": url}}
    webhook = await world.webhook(event_types=["task.completed"], endpoint_url=url, filters=filters)
    await world.ended(await world.created(metadata={"tag": url}))
    page = await visit(f"/deliveries?webhook_id={webhook['id']}", java_script_enabled=False)
    await page.get_by_role("link", name="Send again…").click()
    await page.get_by_role("button", name="Replay").click()
    await expect(page.get_by_role("status")).to_contain_text("One is sent again.")
    await expect(page.locator("#replays")).to_contain_text("all that matched")
    await page.get_by_role("link", name="Change").click()
    await page.get_by_label("Description").fill(HOSTILE.replace("\x1b", ""))
    await page.get_by_role("button", name="Change").click()
    await expect(page.locator("#facts")).to_contain_text("<script>alert(2)</script>\\u202egnp.exe")
    await page.get_by_role("link", name="Remove").click()
    await page.get_by_role("button", name="Remove it").click()
    await expect(page.get_by_role("status")).to_contain_text("The webhook is removed")
    await expect(page.locator(f'[data-row="{webhook["id"]}"]')).to_have_count(0)
