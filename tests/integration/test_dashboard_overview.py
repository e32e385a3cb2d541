"""The overview, without a browser: what it shows of the statistics, and what it asks for."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.clock import utc_now
from receiver.dashboard.overview import LATE_SECONDS, RANGES, NumberLine
from receiver.dashboard.pictures import sparkline
from receiver.dashboard.templates import render
from tests.fakes.dashboard import browser, sign_in, signed_in
from tests.fakes.ports import free_port
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>alert(1)</script>\u202egnp.exe"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("overview")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


async def text_of(client: httpx.AsyncClient, path: str = "/overview") -> str:
    """Return the words of a page, without its elements."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text[:500]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


async def counted(world: World, created: int) -> dict[str, Any]:
    """Wait until this number of tasks, and their ends, are in the sums; return the statistics."""
    async with asyncio.timeout(30):
        while True:
            stats = dict((await world.api.get("/api/v1/stats")).json()["data"])
            tasks = stats["tasks"]
            if (tasks["created"], tasks["completed"] + tasks["failed"]) == (created, created - tasks["now"]["pending"]):
                return stats
            await world.api.get("/readyz")


async def test_it_is_the_first_page_and_begins_with_first_steps(world: World, client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/overview")
    page = await text_of(client)
    assert "ringback task create --model" in page
    assert "None fails, is off, or has deliveries that wait." in page


async def test_it_shows_what_the_statistics_say_and_links_to_the_tasks(world: World, client: httpx.AsyncClient) -> None:
    await world.webhook(endpoint_url=f"http://127.0.0.1:{free_port()}/{HOSTILE[:8]}")
    for fields in ({"model": HOSTILE}, {"sandbox": {"outcome": "failed"}}, {}):
        await world.ended(str((await world.create(**fields)).json()["data"]["task_id"]))
    await world.created({"pending_seconds": 60})
    stats = await counted(world, 4)
    page = (await client.get("/overview")).text
    words = await text_of(client)
    assert "created 4 " in words
    assert "No tasks yet" not in words
    assert 'aria-label="1 tasks are pending"' in page
    assert 'href="/tasks?status=failed"' in page
    assert 'href="/tasks?model=Qubico%2Fflux1-schnell&amp;status=failed"' in page
    assert f"by webhook {100 * stats['tasks']['by_webhook'] / 3:.1f} %" in words
    (broken,) = stats["webhooks"]["shown"]
    assert f'href="/webhooks/{broken["webhook_id"]}"' in page
    assert stats["service"]["version"] in words
    assert ("<script>alert" in page, "\u202e" in page, "\\u202egnp.exe" in words) == (False, False, True)


async def test_a_range_is_in_the_url_and_others_lead_to_the_last_hour(world: World, client: httpx.AsyncClient) -> None:
    for name, step in (("6h", "a minute"), ("24h", "an hour"), ("7d", "an hour"), ("30d", "an hour")):
        since = (utc_now() - RANGES[name][1]).isoformat()
        tasks = (await world.api.get("/api/v1/stats", params={"since": since})).json()["data"]["tasks"]
        most = max(each["created"] for each in tasks["series"])  # 4, unless a minute or an hour began meanwhile
        words = await text_of(client, f"/overview?range={name}")
        assert ("created 4 " in words, f"most {most} {step}" in words) == (True, True)
    for query in ("range=1h", "range=odd", "color=red"):
        answer = await client.get(f"/overview?{query}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/overview")


async def test_a_refused_key_is_told(tmp_path: Path) -> None:
    async with in_process(tmp_path, piapi_api_key="") as world, browser(world) as client:
        await world.create()
        await sign_in(client)
        page = await text_of(client)
        assert "piapi refuses Ringback's key." in page
        assert "refused" in page.split("Providers")[-2]  # the last is among the keys of the keyboard


async def test_what_is_late_uncounted_or_more_than_is_counted_is_told(world: World) -> None:
    """What cannot be caused in a moment, in the template that shows it."""
    stats = (await world.api.get("/api/v1/stats")).json()["data"]
    late = (utc_now() - timedelta(seconds=LATE_SECONDS * 2)).isoformat()
    stats["tasks"] |= {"now": {"queued": 10_000, "staged": 9_999}, "oldest_due_at": late}
    stats["counted_until"] = late
    stats["providers"][0] |= {"paused_seconds": 42.0, "reserved_seconds": 7.5}
    found = _rendered(stats)
    for expected in ("10,000+", "9,999<", "late", "Counted up to", "2 min 00 s", "for 42.0 s", "used for 7.5 s ahead"):
        assert expected in found


def _rendered(stats: dict[str, Any]) -> str:
    """Return the page of an overview, without what all pages have around it."""
    principal = SimpleNamespace(key_name="a key", scope="read")
    return render(
        "overview.html",
        **dict.fromkeys(("theme", "notice", "live", "navigation", "form_token", "here"), ""),
        static=str,
        url=lambda path, query=(): path,
        visit=SimpleNamespace(principal=principal),
        stats=stats,
        chosen="1h",
        ranges=[],
        is_new=False,
        task_lines=[],
        delivery_lines=[NumberLine(name, 0, sparkline([0]), 0) for name in ("delivered", "failed")],
        ways=[],
        due_tasks=120.0,
        due_deliveries=None,
        late=LATE_SECONDS,
        behind=120.0,
    )
