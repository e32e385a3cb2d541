"""Runs in a browser: a run is created from JSON, followed as it goes, opened, cancelled and retried."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from receiver.domain.ids import new_id
from tests.browser.conftest import Visitor, check_access, each_look, shoot
from tests.browser.test_pages import HOSTILE
from tests.fakes.pipeline import FAILS, HELD, begin, ended, get_run, push, step, until_steps, world_with_actions
from tests.fakes.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.sqlite_only("test_pages looks at both databases")]

LONG = "a_step_whose_name_nobody_would_give-" + "W" * 28


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    """One world for the tests of this module: each uses runs of its own."""
    async with world_with_actions(tmp_path_factory.mktemp("browser")) as world:
        yield world


async def test_a_run_is_created_from_json_and_followed_to_its_end(visit: Visitor, world: World) -> None:
    page = await visit("/runs")
    await page.get_by_role("link", name="Create a run").click()
    field = page.get_by_label("The run as JSON")
    await field.fill('{"steps": [{"id": "a", "action": "m:t", "depends_on": ["z"]}, {"id": "b", "action": "no"}]}')
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("alert").get_by_role("listitem")).to_have_count(2)
    await expect(field).to_have_value(
        '{"steps": [{"id": "a", "action": "m:t", "depends_on": ["z"]}, {"id": "b", "action": "no"}]}'
    )
    held = '{"outcome": "never"}'
    steps = [
        f'{{"id": "first", "action": "m:t", "input": {{"sandbox": {held}}}}}',
        '{"id": "last", "action": "m:t", "depends_on": ["first"], "input_map": {"t": "$steps.first.result.task_id"}}',
    ]
    await field.fill(f'{{"steps": [{", ".join(steps)}]}}')
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator("#graph").get_by_role("link", name="Step first, processing")).to_be_visible()
    await expect(page.locator("#next")).to_contain_text("tep 'last' waits for 'first'")
    await page.locator("#step-2-data summary").click()
    await expect(page.locator("#step-2-data")).to_contain_text("nothing is there yet")
    run = await get_run(world, page.url.rsplit("/", 1)[1])
    await push(world, run, "first", "completed")
    await expect(page.locator("#head .state")).to_have_text("completed")
    await expect(page.locator("#graph").get_by_role("link", name="Step last, completed")).to_be_visible()
    await expect(page.locator("#step-2-data")).to_contain_text(run["steps"][0]["job_id"])  # it is still open
    await expect(page.locator("#history li").last).to_contain_text("run.completed")
    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    await page.locator("#graph").get_by_role("link", name="Step last").click()
    await page.wait_for_url("**/tasks/*")


async def test_the_list_follows_and_is_left_and_entered_by_keys(visit: Visitor, world: World) -> None:
    tag = new_id()[-8:]
    page = await visit(f"/runs?metadata%5Btag%5D={tag}")
    await expect(page.get_by_text("No run matches")).to_be_visible()
    await expect(page.get_by_role("button", name="Live: pause")).to_have_attribute("data-is", "live")
    run_id = await begin(world, step("a", sandbox=HELD), step("b", "a"), metadata={"tag": tag})
    row = page.locator(f'[data-row="{run_id}"]')
    await expect(row).to_contain_text("0 of 2")
    await push(world, await until_steps(world, run_id, a="processing"), "a", "completed")
    await expect(row).to_contain_text("2 of 2")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/runs/{run_id}")
    await page.keyboard.press("Escape")
    await page.wait_for_url("**/runs")
    await page.go_back()
    await page.go_back()
    await expect(row).to_contain_text("2 of 2")
    await page.keyboard.press("/")
    await page.get_by_label("Search").fill(run_id)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/runs/{run_id}")


async def test_a_run_is_cancelled_and_retried(visit: Visitor, world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD))
    await until_steps(world, run_id, a="processing")
    page = await visit(f"/runs/{run_id}")
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("status")).to_contain_text("The run is cancelled.")
    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_role("status")).to_contain_text("is done again")
    await expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.get_by_role("button", name="Cancel").click()


@pytest.mark.large("looks at each page in light and dark, wide and on a phone")
@pytest.mark.sqlite_only("looks")
@pytest.mark.long
async def test_runs_are_legible_in_every_look(visit: Visitor, world: World) -> None:
    page = await visit("/runs?status=pending")
    await check_access(page)
    ids = await _history(world)
    await page.goto("/runs")
    async with each_look(page) as look:
        await look("runs")
        await page.goto(f"/runs/{ids['launch']}")
        await page.locator("#step-3-data summary").click()
        await look("run")
        await page.goto(f"/runs/{ids['wide']}")
        await look("run-wide")
        await page.goto("/runs/new")
        await look("run-new")
    for name in ("dense", "chain", "one", "hostile"):
        await page.goto(f"/runs/{ids[name]}")
        await shoot(page, f"run-{name}")
        await check_access(page)
    await page.goto("/runs/new")
    await page.get_by_label("The run as JSON").fill('{"steps": [{"id": "a", "action": "x", "depends_on": ["b"]}]}')
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await shoot(page, "run-new-fault")
    await check_access(page)


async def _history(world: World) -> dict[str, str]:
    """Make runs of several shapes and states; return their ids."""
    slow, retry = {"duration": 0.4, "pending_seconds": 0.2}, {"max_attempts": 3, "backoff_seconds": 0.3}
    flaky = {"outcome": "failed", "duration": 0.2}
    launch = [
        step("extract_brand", sandbox=slow, action="brands.extract"),
        step("write_copy", "extract_brand", sandbox={"duration": 0.2}),
        step(
            "generate_hero",
            "extract_brand",
            sandbox=slow,
            input_map={"brand_id": "$steps.extract_brand.result.brand_id", "market": "$run.metadata.market"},
        ),
        step("localize_german", "generate_hero", "write_copy", sandbox={"duration": 60, "progress": 3}),
        step("localize_french", "generate_hero", "write_copy", sandbox=flaky, retry=retry, on_failure="continue"),
        step("publish", "localize_german", "localize_french"),
    ]
    ids = {"launch": await begin(world, *launch, metadata={"pipeline": "campaign-launch", "market": "dach"})}
    await until_steps(world, ids["launch"], localize_german="processing", localize_french="failed")
    wide = [step("brief"), *(step(f"variant_{n}", "brief", sandbox=slow if n % 2 else {}) for n in range(8))]
    ids["wide"] = await begin(
        world, *wide, step("pick", *(f"variant_{n}" for n in range(8))), metadata={"customer": 42}
    )
    ids["dense"] = await begin(world, *(step(f"s{n}", *(f"s{m}" for m in range(n))) for n in range(7)))
    ids["chain"] = await begin(world, *(step(f"part_{n}", *([f"part_{n - 1}"] if n else [])) for n in range(10)))
    ids["one"] = await begin(world, step("only", sandbox=FAILS), metadata={"n": 1})
    hostile = step(LONG, input={HOSTILE: HOSTILE}, input_map={HOSTILE: "$run.metadata.h"})
    ids["hostile"] = await begin(world, hostile, step("b" + LONG[:60], LONG), metadata={"h": HOSTILE, HOSTILE: "x"})
    for name in ("wide", "dense", "chain", "one", "hostile"):
        await ended(world, ids[name])
    await begin(world, step("a", sandbox={"pending_seconds": 600}), step("b", "a"))
    return ids
