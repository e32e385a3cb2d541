"""`ringback provider` against a running service, and what `ringback task get` and the dashboard say of an account."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.command import Ringback
from tests.fakes.dashboard import signed_in
from tests.fakes.world import FAST_POLLING, World, in_process
from tests.integration.test_provider_accounts import FIRST, SECOND, Twin, twin_served

pytestmark = pytest.mark.sqlite_only("the commands use HTTP alone; other tests cover the database")


@pytest_asyncio.fixture
async def twin() -> AsyncIterator[Twin]:
    async with twin_served() as found:
        yield found


@pytest_asyncio.fixture
async def world(tmp_path: Any) -> AsyncIterator[World]:
    async with in_process(tmp_path, **FAST_POLLING) as found:
        yield found


async def test_an_account_is_added_used_checked_rotated_and_removed(world: World, twin: Twin) -> None:
    ringback = Ringback(world)
    limits = ("--rate", "50", "--concurrency", "3", "--base-url", twin.url)
    key = ("--credential-file", "api_key=-")
    added = await ringback.data("provider", "account", "add", "fal", "team-a", *key, *limits, stdin=f"{FIRST}\n")
    assert (added["name"], added["calls_per_second"], added["concurrency"]) == ("team-a", 50, 3)
    again = await ringback.run("provider", "account", "add", "fal", "team-a", *key, stdin=FIRST)
    assert (again[0] != 0, "there is an account 'team-a'" in again[2]) == (True, True)

    checked = await ringback.data("provider", "check", "fal", "--account", "team-a")
    assert (checked["account"], checked["is_accepted"], twin.keys("GET")) == ("team-a", True, {FIRST})
    making = ("--provider", "fal", "--account", "team-a", "--model", "fal-ai/flux/dev", "--task-type", "t", "-i")
    task = await ringback.data("task", "create", *making, "prompt=a cat")
    status, shown, _ = await ringback.run("task", "get", task["task_id"])
    assert (status, "team-a" in shown) == (0, True)
    async with signed_in(world) as browser:
        page = (await browser.get(f"/tasks/{task['task_id']}")).text
    assert ("<dt>Account</dt><dd>team-a</dd>" in page, "&#34;account&#34;:&#34;team-a&#34;" in page) == (True, True)

    (world.folder / "new-key").write_text(SECOND)
    file = f"api_key={world.folder / 'new-key'}"
    status, rotated, _ = await ringback.run("provider", "account", "rotate", "fal", "team-a", "--credential-file", file)
    assert (status, "team-a" in rotated) == (0, True)
    twin.calls.clear()
    twin.refused.add(SECOND)
    status, out, err = await ringback.run("provider", "check", "fal", "--account", "team-a")
    assert (status, twin.keys("GET"), "account team-a of fal: HTTP 401" in err) == (1, {SECOND}, True)

    status, listed, _ = await ringback.run("provider", "account", "list", "fal")
    assert (status, "team-a" in listed) == (0, True)
    providers = {each["name"]: each for each in (await ringback.data("provider", "list"))["data"]}
    assert [each["name"] for each in providers["fal"]["accounts"]] == ["default", "team-a"]
    for text in (str(added), str(again), shown, rotated, out, err, listed, str(providers)):
        assert [each for each in (FIRST, SECOND) if each in text] == []

    status, removed, _ = await ringback.run("provider", "account", "remove", "fal", "team-a")
    assert (status, removed.strip()) == (0, "account team-a of fal is removed")
    assert (await ringback.data("provider", "account", "list", "fal"))["data"] == []
    assert "no account 'team-a'" in (await ringback.run("provider", "check", "fal", "--account", "team-a"))[2]
