"""A real browser, one for all tests of a process, and a world whose dashboard it looks at."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, ViewportSize, async_playwright

from tests.fakes.dashboard import COOKIE, signed_in
from tests.fakes.world import API_KEY, World, in_process

SHOTS = Path(__file__).parent / ".shots"
REQUIRED = "TEST_REQUIRE_PROGRAMS"
"""Set it (`.ci/run` does) to let tests fail, not skip, where the browser is missing."""
WIDE: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 360, "height": 740}
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_WAIT_MS = 10_000
_LOAD_MS = 30_000
"""No test measures how long a page takes to load: on a busy machine the largest ones take long."""
_ACCEPTED = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
_THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_CHECKED = (("light", "wide"), ("dark", "phone"))
"""The looks at which axe looks: each theme and each width once."""
_AXE = """async tags => {
    const found = await axe.run({ runOnly: { type: "tag", values: tags }, resultTypes: ["violations"] });
    return found.violations.map(each => [each.id, each.help, ...each.nodes.map(node => node.html.slice(0, 300))]);
}"""
"""The wrapper of the package reads all results in Python, which takes ten times as long."""


@dataclass
class Looked:
    """What a page did that it must not do, or did unnoticed."""

    hosts: set[str]
    allowed: set[str] = field(default_factory=set)
    """URLs elsewhere that a person asked for."""
    faults: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        """Note everything from now on."""
        page.on("console", lambda message: self._hear(page, message))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self._note(request.url))

    def _hear(self, page: Page, message: ConsoleMessage) -> None:
        is_own_status = message.location["url"] == page.url  # of a page that answers 4xx, as it should
        if message.type == "error" and not is_own_status:
            self.faults.append(message.text)

    def _note(self, url: str) -> None:
        if (
            urlsplit(url).netloc not in self.hosts
            and url not in self.allowed
            and not url.startswith(("data:", "blob:"))
        ):
            self.elsewhere.append(url)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        missing = "chromium is not installed (Debian: chromium, see .ci/run)"
        if os.environ.get(REQUIRED):
            pytest.fail(missing)
        pytest.skip(missing)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    """One world for the tests of a module: each uses tasks of its own."""
    async with in_process(tmp_path_factory.mktemp("browser")) as world:
        yield world


Visitor = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def visit(chromium: Browser, world: World) -> AsyncIterator[Visitor]:
    """Open a page as who is signed in with a key. At the end no page may have had an error, or asked another host."""
    contexts: list[BrowserContext] = []
    looked = Looked({urlsplit(world.base).netloc})

    async def open_page(
        path: str, key: str | None = API_KEY, allowed: Sequence[str] = (), host: str | None = None, **options: Any
    ) -> Page:
        looked.allowed |= set(allowed)
        if host is not None:
            looked.hosts = {urlsplit(host).netloc}
        context = await chromium.new_context(base_url=world.base, viewport=WIDE, **options)
        context.set_default_timeout(_WAIT_MS)
        context.set_default_navigation_timeout(_LOAD_MS)
        contexts.append(context)
        if key is not None:
            await context.add_cookies([{"name": COOKIE, "value": await session_of(world, key), "url": world.base}])
        page = await context.new_page()
        looked.follow(page)
        await page.goto(path)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert (looked.faults, looked.elsewhere) == ([], [])


async def session_of(world: World, key: str) -> str:
    """Return the cookie of a session that was begun without a browser: a test of signing in uses the form."""
    async with signed_in(world, key) as client:
        return client.cookies[COOKIE]


async def shoot(page: Page, name: str) -> None:
    """Write a picture of the whole page, for a person to look at."""
    SHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


async def check_access(page: Page) -> None:
    """Assert that axe finds nothing that keeps people out, in the page as it is now."""
    await page.evaluate(AXE_SCRIPT)
    assert await page.evaluate(_AXE, list(_ACCEPTED)) == []


@asynccontextmanager
async def each_look(page: Page) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Give a function that looks at the page in light and dark, wide and on a phone: pictures, and axe."""

    async def look(name: str) -> None:
        for theme in _THEMES:
            await page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # nothing half faded
            for shape, size in (("wide", WIDE), ("phone", PHONE)):
                await page.set_viewport_size(size)
                await shoot(page, f"{name}-{theme}-{shape}")
                if (theme, shape) in _CHECKED:
                    await check_access(page)
                width = await page.evaluate("document.documentElement.scrollWidth")
                assert width <= size["width"], f"{name} is {width} wide"
        await page.set_viewport_size(WIDE)

    yield look
