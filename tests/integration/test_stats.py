"""`GET /api/v1/stats`: its numbers are those of what happened, and a range that it has not is refused."""

from datetime import timedelta
from typing import Any

import pytest

from receiver.clock import utc_now
from receiver.providers.registry import APIS
from tests.fakes.organizations import another_organization
from tests.fakes.world import World

MODEL = "Qubico/flux1-schnell"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.workers.statistics.EVERY_SECONDS", 0.05)


async def stats(world: World, path: str = "/api/v1/stats", **query: str) -> dict[str, Any]:
    answer = await world.api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


async def counted(world: World, ends: int) -> dict[str, Any]:
    """Return the statistics when this number of ends, and as many attempts, are counted."""
    while True:
        found = await stats(world)
        ended = found["tasks"]["completed"] + found["tasks"]["failed"]
        if min(ended, found["deliveries"]["attempts"]) >= ends:
            return await stats(world)  # its parts are read one after the other: some may have been read before
        await world.api.get("/readyz")


async def test_the_numbers_are_those_of_what_happened(world: World) -> None:
    webhook = await world.webhook(event_types=["task.completed", "task.failed"])
    for outcome in ("completed", "completed", "failed"):
        await world.ended(await world.created({"outcome": outcome}))
    found = await counted(world, 3)
    tasks = found["tasks"]
    assert [tasks[name] for name in ("created", "completed", "failed", "cancelled")] == [3, 2, 1, 0]
    assert tasks["by_webhook"] + tasks["by_poll"] + tasks["by_other"] == 3
    assert tasks["now"] == dict.fromkeys(("queued", "staged", "pending", "processing"), 0)
    (model,) = tasks["models"]
    assert (model["model"], model["completed"]) == (MODEL, 2)
    assert 0 <= model["p50_seconds"] <= model["p99_seconds"] < 30
    assert sum(each["created"] for each in tasks["series"]) == 3
    assert 60 <= len(tasks["series"]) <= 62
    assert (found["deliveries"]["delivered"], found["deliveries"]["success_rate"]) == (3, 1)
    assert found["service"]["replicas"] == 1
    assert {each["name"] for each in found["providers"]} == {"piapi", *APIS}  # of which there is an account here
    of_one = await stats(world, f"/api/v1/webhooks/{webhook['id']}/stats")
    assert (of_one["deliveries"]["attempts"], of_one["pending"], of_one["is_active"]) == (3, 0, True)
    assert (await stats(world, model="another"))["tasks"]["created"] == 0
    assert (await stats(world, step="hour"))["tasks"]["created"] == 3


async def test_webhooks_that_fail_are_shown_with_what_waits_for_them(world: World) -> None:
    webhook = await world.webhook(event_types=["task.completed"])
    world.subscriber.answer = lambda _number, _request: 500
    await world.ended(await world.created())
    found = await counted(world, 1)
    (shown,) = found["webhooks"]["shown"]
    assert (shown["webhook_id"], shown["pending"]) == (webhook["id"], 1)
    assert (found["webhooks"]["failing"], found["deliveries"]["failed"]) == (1, found["deliveries"]["attempts"])
    off = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": False})
    assert off.status_code == 200
    (shown,) = (await stats(world))["webhooks"]["shown"]
    assert (shown["is_active"], shown["pending"]) == (False, 1)


async def test_an_organization_sees_its_own_numbers_alone(world: World) -> None:
    await world.ended(await world.created())
    answer = await world.api.get("/api/v1/stats", headers=another_organization(world))
    found = answer.json()["data"]
    assert (found["tasks"]["created"], found["tasks"]["models"], found["providers"]) == (0, [], [])


@pytest.mark.parametrize(
    "query",
    [
        {"since": "2020-01-01T00:00:00Z", "step": "minute"},
        {"since": "2020-01-01T00:00:00Z"},
        {"since": "2999-01-01T00:00:00Z"},
        {"step": "day"},
    ],
)
async def test_a_range_that_it_has_not_is_refused(world: World, query: dict[str, str]) -> None:
    answer = await world.api.get("/api/v1/stats", params=query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_query_params")


async def test_a_month_is_one_answer(world: World) -> None:
    found = await stats(world, since=str(int((utc_now() - timedelta(days=30)).timestamp())))
    assert (found["step"], len(found["tasks"]["series"])) == ("hour", 721)


async def test_the_list_of_webhooks_has_the_numbers_of_each_if_they_are_asked_for(world: World) -> None:
    quiet = await world.webhook(event_types=["run.failed"])
    busy = await world.webhook(event_types=["task.completed"])
    world.subscriber.answer = lambda number, _request: 500 if number == 1 else 200
    await world.ended(await world.created())
    await counted(world, 1)
    while (listed := (await stats(world, "/api/v1/webhooks", include="stats"))["data"])[0]["stats"]["attempts"] < 2:
        await world.api.get("/readyz")
    found = {each["id"]: [each["stats"][name] for name in ("attempts", "success_rate", "pending")] for each in listed}
    assert found == {busy["id"]: [2, 0.5, 0], quiet["id"]: [0, None, 0]}
    assert "stats" not in (await stats(world, "/api/v1/webhooks"))["data"][0]
