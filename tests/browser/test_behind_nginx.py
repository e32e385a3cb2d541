"""The whole dashboard below a prefix, behind a real nginx with TLS, set as `deploy/proxies/nginx.conf` says."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import expect

from receiver.dashboard.navigation import entries
from tests.browser.conftest import Visitor
from tests.deploy.proxies import HOST, Nginx, new_place, rendered, served
from tests.fakes.certificate import self_signed
from tests.fakes.world import API_KEY, World, in_process

# Where nginx hands a request on is a matter of paths, not of the database.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("a matter of paths")]

PREFIX = "/ringback"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("prefixed")
    async with in_process(folder, root_path=PREFIX, trusted_proxies="127.0.0.1") as world:
        yield world


@pytest_asyncio.fixture(params=["kept", "prefix-stripped"], loop_scope="session")
async def proxy(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of nginx, which hands the path on with its prefix, or without it."""
    options = [] if request.param == "kept" else [request.param]
    nginx, place = Nginx(), new_place(tmp_path, self_signed(tmp_path, HOST), world.port)
    async with served(nginx, rendered(nginx, place, options), place) as url:
        yield url


async def test_a_person_does_everything_below_the_prefix_and_asks_for_nothing_outside(
    proxy: str, world: World, visit: Visitor
) -> None:
    task = await world.created({"pending_seconds": 60})
    page = await visit("about:blank", key=None, host=proxy, ignore_https_errors=True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{proxy}{PREFIX}/")
    await page.get_by_label("API key").fill(API_KEY)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{proxy}{PREFIX}/overview")
    (cookie,) = [each for each in await page.context.cookies() if each["name"] == "ringback_session"]
    assert (cookie["path"], cookie["secure"], cookie["httpOnly"]) == (PREFIX, True, True)

    await page.get_by_role("link", name="tasks are pending").click()
    await page.wait_for_url(f"{proxy}{PREFIX}/tasks?status=pending")
    page.once("dialog", lambda dialog: dialog.accept())
    await page.locator(f'[data-row="{task}"]').get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("status")).to_contain_text("The task is cancelled.")
    await page.wait_for_url(f"{proxy}{PREFIX}/tasks?status=pending")

    await page.get_by_role("link", name="Events").click()
    await page.wait_for_url(f"{proxy}{PREFIX}/events")
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    fresh = await world.created()
    await expect(page.locator("[data-row]").filter(has_text=fresh[-12:]).first).to_be_visible()  # live through nginx
    await page.locator("[data-row]").get_by_role("link", name=fresh[-12:]).first.click()
    await page.wait_for_url(f"{proxy}{PREFIX}/tasks/{fresh}")
    await page.keyboard.press("Escape")
    await page.wait_for_url(f"{proxy}{PREFIX}/tasks")

    for entry in entries():  # those that are served by now, and those that are not
        await page.goto(f"{proxy}{PREFIX}{entry.path}")
    await page.goto(f"{proxy}{PREFIX}/tasks")
    await page.keyboard.press("t")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(f"{proxy}{PREFIX}/sign-in")
    assert [url for url in asked if not urlsplit(url).path.startswith(f"{PREFIX}/")] == []
    assert len(asked) > 10
