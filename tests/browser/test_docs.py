"""The docs in a browser: how they look, and the search at once and without JavaScript."""

from urllib.parse import quote_plus

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visitor, each_look
from tests.fakes.world import World

# No database changes anything of them.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("docs")]
SHOWN = "[data-entry]:not([hidden])"


@pytest.mark.large("looks at each page in light and dark, wide and on a phone")
@pytest.mark.long
async def test_docs_are_legible_in_every_look(world: World, visit: Visitor) -> None:
    page = await visit("/docs", key=None)
    async with each_look(page) as look:
        await look("docs-stranger")
        await page.goto("/docs/webhooks")
        await look("docs-guide")
        await page.goto("/docs/api?q=create_webhook")
        await page.locator("#create_webhook summary").first.click()
        await look("docs-reference")
    page = await visit("/docs")
    async with each_look(page) as look:
        await look("docs")
        await page.goto("/docs/troubleshooting")
        await look("docs-table")


async def test_the_search_is_at_once_and_its_url_can_be_shared(world: World, visit: Visitor) -> None:
    page = await visit("/docs/api")
    await page.keyboard.press("/")
    await page.keyboard.type("outcome_unknown")
    await expect(page.locator("#error-outcome_unknown")).to_be_visible()
    await expect(page.locator("#create_webhook")).to_be_hidden()
    found = await page.locator(SHOWN).count()
    assert page.url.endswith("/docs/api?q=outcome_unknown")
    await page.reload()
    await expect(page.locator("#search")).to_have_value("outcome_unknown")
    assert await page.locator(SHOWN).count() == found
    await page.locator("#search").fill("zebra")
    await expect(page.locator("#none")).to_be_visible()
    await page.locator("#none a").click()
    await expect(page.locator("#create_webhook")).to_be_visible()


async def test_every_word_that_the_server_finds_the_page_finds(world: World, visit: Visitor) -> None:
    scripted, page = await visit("/docs/api"), await visit("/docs/api", java_script_enabled=False)
    for query in ("rotate overlap", "get /api/v1/runs", "x-pi-signature", "conflict", "prefers <code>", "no key"):
        with_script = await shown(scripted, query)
        await page.locator("#search").fill(query)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**?q={quote_plus(query)}")
        assert await ids(page) == with_script, query


async def shown(page: Page, query: str) -> list[str]:
    await page.locator("#search").fill(query)
    return await ids(page)


async def ids(page: Page) -> list[str]:
    found = await page.locator(SHOWN).all()
    return [str(await each.get_attribute("id")) for each in found]


async def test_a_link_to_what_the_search_left_out_shows_it(world: World, visit: Visitor) -> None:
    page = await visit("/docs/api", key=None)
    await page.locator("#search").fill("create_webhook")
    await page.locator("#create_webhook summary", has_text="Answers by status").click()
    await page.locator("#create_webhook .codes a", has_text="organization_limit_reached").first.click()
    await expect(page.locator("#error-organization_limit_reached")).to_be_in_viewport()
