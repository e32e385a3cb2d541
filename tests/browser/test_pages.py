"""The dashboard in a browser: what a person does with it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from receiver.domain.ids import new_id
from tests.browser.conftest import Visitor
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202egnp.exe\u2066\x1b[31m\"'"


async def key_of(world: World, scope: str) -> str:
    answer = await world.api.post("/api/v1/keys", json={"name": scope, "scope": scope})
    return str(answer.json()["data"]["key"])


def row(page: Page, task: str) -> str:
    return f'[data-row="{task}"]'


async def test_a_person_signs_in_and_out(visit: Visitor, world: World) -> None:
    page = await visit("/tasks?status=failed", key=None)
    await expect(page.get_by_role("heading", name="Sign in to Ringback")).to_be_visible()
    await page.get_by_label("API key").fill(await key_of(world, "read"))
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/tasks?status=failed")
    await expect(page.get_by_text("may read", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/sign-in")
    await page.go_back()
    await expect(page.get_by_label("API key")).to_be_visible()


async def test_a_look_while_one_signs_out_does_not_come_before_the_way_out(visit: Visitor, world: World) -> None:
    page = await visit("/tasks")
    was_seen, ended = asyncio.Event(), asyncio.Event()

    async def answer_late(route: Route) -> None:
        answer = await route.fetch(max_redirects=0)
        ended.set()
        await was_seen.wait()
        await route.fulfill(response=answer)

    await page.route("**/sign-out", answer_late)
    await page.get_by_role("button", name="Sign out").click(no_wait_after=True)
    await ended.wait()
    for _ in range(2):  # at the second answer the page is done with the first one
        async with page.expect_response("**/sign-in?next=%2Ftasks"):
            await page.keyboard.press("r")
    was_seen.set()
    await page.wait_for_url("**/sign-in")


async def test_filters_are_in_the_url_and_back_goes_back(visit: Visitor, world: World) -> None:
    tag = new_id()[-8:]
    tasks = [await world.created({"outcome": outcome}, metadata={"tag": tag}) for outcome in ("failed", "completed")]
    for task in tasks:
        await world.ended(task)
    page = await visit("/tasks")
    await page.get_by_label("Search").fill(f"tag={tag}")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/tasks?metadata%5Btag%5D={tag}")
    await expect(page.locator("[data-row]")).to_have_count(2)
    await page.get_by_label("State").get_by_role("link", name="failed").click()
    await page.wait_for_url("**status=failed")
    await expect(page.locator("[data-row]")).to_have_count(1)
    await page.locator("#columns summary").click()
    await page.get_by_role("checkbox", name="Metadata").check()
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("columnheader", name="Metadata")).to_be_visible()
    await page.go_back()
    await page.go_back()
    await expect(page.locator("[data-row]")).to_have_count(2)
    await page.get_by_label("Remove the filter").click()
    await page.wait_for_url("**/tasks")


async def test_a_page_follows_what_happens_until_it_is_paused(visit: Visitor, world: World) -> None:
    tag = new_id()[-8:]
    page = await visit(f"/tasks?metadata%5Btag%5D={tag}")
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    first = await world.created({"pending_seconds": 60}, metadata={"tag": tag})
    await expect(page.locator(row(page, first))).to_contain_text("pending")
    await page.keyboard.press("p")
    await expect(page.get_by_role("button", name="Paused: go on")).to_be_visible()
    second = await world.created(metadata={"tag": tag})
    await world.ended(second)
    await expect(page.locator(row(page, second))).to_have_count(0)
    await page.keyboard.press("r")
    await expect(page.locator(row(page, second))).to_contain_text("completed")
    third = await world.created(metadata={"tag": tag})
    await page.get_by_role("button", name="Paused: go on").click()
    await expect(page.locator(row(page, third))).to_contain_text("completed")


async def test_a_task_s_page_follows_it_to_its_end(visit: Visitor, world: World) -> None:
    task = await world.created({"pending_seconds": 0.5, "duration": 0.5})
    page = await visit(f"/tasks/{task}")
    await expect(page.locator("#head .state")).to_have_text("completed")
    await expect(page.locator("#timeline .steps li").last).to_contain_text("task.completed")
    await expect(page.locator("#output")).to_contain_text("image_url")
    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


async def test_the_keyboard_goes_everywhere(visit: Visitor, world: World) -> None:
    tag = new_id()[-8:]
    tasks = [await world.ended(await world.created(metadata={"tag": tag})) for _ in range(2)]
    page = await visit(f"/tasks?metadata%5Btag%5D={tag}")
    await page.keyboard.press("/")
    await expect(page.get_by_label("Search")).to_be_focused()
    await page.keyboard.press("j")  # typed, for this is a field
    await page.keyboard.press("Escape")
    await expect(page.get_by_label("Search")).not_to_be_focused()
    for key in ("j", "j", "k", "j"):
        await page.keyboard.press(key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/tasks/{tasks[0]['task_id']}")
    await page.keyboard.press("Escape")
    await page.wait_for_url("**/tasks")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    await page.keyboard.press("t")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.keyboard.press("g")
    await page.keyboard.press("t")
    await page.wait_for_url("**/tasks")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_a_task_is_cancelled_and_retried_from_the_list(visit: Visitor, world: World) -> None:
    task = await world.created({"pending_seconds": 60}, metadata={"tag": (tag := new_id()[-8:])})
    page = await visit(f"/tasks?metadata%5Btag%5D={tag}")
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.dismiss()))
    await page.get_by_role("button", name=f"Cancel {task[-12:]}").click()
    assert (await world.task(task))["status"] == "pending"
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.get_by_role("button", name=f"Cancel {task[-12:]}").click()
    await expect(page.get_by_role("status")).to_contain_text("The task is cancelled.")
    await page.get_by_role("button", name=f"Retry {task[-12:]}").click()
    await expect(page.get_by_role("status")).to_contain_text("Another attempt begins")
    assert (await world.task(task))["attempt"] == 2


async def test_a_read_key_sees_no_controls(visit: Visitor, world: World) -> None:
    task = await world.created({"pending_seconds": 60})
    page = await visit("/tasks", key=await key_of(world, "read"))
    await expect(page.locator(row(page, task))).to_be_visible()
    for path in ("/tasks", f"/tasks/{task}"):
        await page.goto(path)
        for name in ("Cancel", "Retry", "Refresh"):
            await expect(page.get_by_role("button", name=name)).to_have_count(0)


async def test_what_strangers_send_stays_text(visit: Visitor, world: World) -> None:
    answer = await world.create(model=HOSTILE, input={"prompt": HOSTILE, HOSTILE: HOSTILE}, metadata={HOSTILE: HOSTILE})
    task = answer.json()["data"]["task_id"]
    page = await visit("/tasks?columns=model&columns=metadata&columns=error")
    await expect(page.locator(row(page, task))).to_contain_text("<script>alert(2)</script>\\u202egnp.exe")
    await page.goto(f"/tasks/{task}?raw=1")
    await expect(page.locator("h1")).to_contain_text("\\u202egnp.exe\\u2066\\x1b[31m")
    assert await page.evaluate("document.querySelectorAll('main script, main img').length") == 0


async def test_ten_megabytes_are_shown_in_part_and_downloaded_whole(visit: Visitor, world: World) -> None:
    task = await world.created(input={"prompt": "x", "picture": "A" * 10_000_000, "last": "the-end"})
    page = await visit(f"/tasks/{task}")
    await expect(page.get_by_text("Shown in part: it has 10.0 MB.")).to_be_visible()
    await expect(page.get_by_role("region", name="Input")).to_contain_text("(10,000,000 characters)")
    await expect(page.get_by_role("region", name="Input")).to_contain_text("the-end")
    assert len(await page.content()) < 100_000
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download all of it").click()
    assert (await (await started.value).path()).stat().st_size > 10_000_000


async def test_without_scripts_everything_but_liveness_works(visit: Visitor, world: World) -> None:
    task = await world.created({"pending_seconds": 60}, metadata={"tag": (tag := new_id()[-8:])})
    page = await visit("/tasks", java_script_enabled=False)
    await expect(page.locator("#live")).to_be_hidden()
    await page.get_by_label("Search").fill(f"tag={tag}")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name=f"Cancel {task[-12:]}").click()
    await expect(page.get_by_role("status")).to_contain_text("The task is cancelled.")
    await page.get_by_role("button", name="Dark").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.locator(row(page, task)).get_by_role("link").first.click()
    await page.wait_for_url(f"**/tasks/{task}")


@pytest_asyncio.fixture(loop_scope="session")
async def prefixed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("prefixed"), root_path="/ringback") as world:
        yield world


@pytest.mark.sqlite_only("a matter of paths")
async def test_below_a_prefix_pages_and_their_parts_are_found(prefixed: World, visit: Visitor) -> None:
    page = await visit(f"{prefixed.base}/ringback/tasks", key=None, host=prefixed.base)
    await page.get_by_label("API key").fill(await key_of(prefixed, "read"))
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/ringback/tasks")
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    await prefixed.created()
    await expect(page.locator("[data-row]")).to_have_count(1)
    await page.keyboard.press("t")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_previews_are_loaded_when_they_are_asked_for(visit: Visitor, world: World) -> None:
    task = await world.ended(await world.created())
    page = await visit(f"/tasks/{task['task_id']}", allowed=[task["output"]["image_url"]])
    await expect(page.locator("main img")).to_have_count(0)
    await page.get_by_role("link", name="Show previews").click()
    await expect(page.locator("main img")).to_have_js_property("complete", True)
    assert await page.evaluate("document.querySelector('main img').naturalWidth") > 0
