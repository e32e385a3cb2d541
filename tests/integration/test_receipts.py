"""`GET /api/v1/receipts`: what was authentic and not applied, whose it is, and the counts of all that came in."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from tests.fakes.inbound import PICTURE, SILENT, hook_secret, notice, post, report
from tests.fakes.organizations import another_organization
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHARED = "a-shared-secret-of-the-provider"
FIELDS = {"object", "id", "provider", "task_id", "provider_task_id", "reason", "message", "received_at"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("receipts"), piapi_webhook_secret=SHARED) as world:
        yield world


async def listed(world: World, headers: dict[str, str] | None = None, **query: Any) -> list[dict[str, Any]]:
    answer = await world.api.get("/api/v1/receipts", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"]["data"])


async def shared(world: World, **content: Any) -> int:
    """Post a webhook of a task that was created elsewhere; return the status of the answer."""
    headers = {"x-webhook-secret": SHARED}
    return (await world.provider.post(f"{world.base}/hooks/piapi", headers=headers, **content)).status_code


async def test_what_was_not_applied_is_listed_newest_first_by_every_filter(world: World) -> None:
    task = await world.created(SILENT)
    await report(world, task, "completed", output=PICTURE)
    await report(world, task, "failed", error={"code": 1, "message": "late"})
    await post(world, task, content=b"no task")
    malformed, conflicting = await listed(world, task_id=task)
    assert [set(malformed), set(conflicting)] == [FIELDS, FIELDS]
    assert (malformed["reason"], malformed["task_id"], malformed["provider_task_id"]) == ("malformed", task, None)
    provider_task_id = (await world.task(task))["provider_task_id"]
    assert (conflicting["reason"], conflicting["provider_task_id"]) == ("conflicting", provider_task_id)
    for query, found in (
        ({"reason": "malformed"}, [malformed]),
        ({"reason": "superseded"}, []),
        ({"provider": "piapi"}, [malformed, conflicting]),
        ({"provider": "another"}, []),
        ({"received_after": conflicting["received_at"]}, [malformed]),
        ({"received_before": malformed["received_at"]}, [conflicting]),
    ):
        assert await listed(world, task_id=task, **query) == found, query
    assert await listed(world, task_id=provider_task_id) == [malformed, conflicting]
    first = (await world.api.get("/api/v1/receipts", params={"task_id": task, "limit": 1})).json()["data"]
    assert (first["data"], first["has_more"]) == ([malformed], True)
    assert await listed(world, task_id=task, cursor=first["next_cursor"]) == [conflicting]


@pytest.mark.parametrize(
    "query", ["reason=odd", "received_after=noon", "received_after=2026-01-02&received_before=2026-01-01", "outcome=1"]
)
async def test_a_filter_that_means_nothing_is_refused(world: World, query: str) -> None:
    answer = await world.api.get(f"/api/v1/receipts?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_query_params")


async def test_one_receipt_has_its_body_without_the_secret(world: World) -> None:
    task = await world.created(SILENT)
    secret = hook_secret(world, task)
    await post(world, task, content=f'{{"data": {{"status": "x", "seed": 9007199254740993, "a": "{secret}"'.encode())
    (found,) = await listed(world, task_id=task)
    receipt = (await world.api.get(f"/api/v1/receipts/{found['id']}")).json()["data"]
    assert receipt == {**found, "body": receipt["body"]}
    assert ("9007199254740993" in receipt["body"], secret in receipt["body"]) == (True, False)


async def test_a_receipt_belongs_to_the_organization_of_its_task(world: World) -> None:
    theirs = another_organization(world, owns_provider_account=True)
    created = await world.api.post(
        "/api/v1/task",
        json={"model": "m", "task_type": "t", "input": {"sandbox": {"outcome": "never", "webhook": "lost"}}},
        headers=theirs,
    )
    task, before = created.json()["data"]["task_id"], await listed(world)
    provider_task_id = (await world.api.get(f"/api/v1/tasks/{task}", headers=theirs)).json()["data"]["provider_task_id"]
    await post(world, task, content=b"of their task")
    assert await shared(world, json=notice(provider_task_id, "completed", output=PICTURE)) == 200
    assert await shared(world, json=notice(provider_task_id, "failed")) == 200
    found = await listed(world, theirs)
    assert [(each["reason"], each["task_id"]) for each in found] == [("conflicting", task), ("malformed", task)]
    assert await listed(world) == before
    assert (await world.api.get(f"/api/v1/receipts/{found[0]['id']}")).status_code == 404


async def test_a_receipt_without_a_task_is_the_operator_s_alone(world: World) -> None:
    theirs = another_organization(world, owns_provider_account=True)
    mark = new_id()
    assert await shared(world, content=f"{mark} is no task".encode()) == 400
    (newest, *_) = await listed(world)
    assert (newest["task_id"], newest["reason"]) == (None, "malformed")
    assert mark in (await world.api.get(f"/api/v1/receipts/{newest['id']}")).json()["data"]["body"]
    assert await listed(world, theirs) == []
    assert (await world.api.get(f"/api/v1/receipts/{newest['id']}", headers=theirs)).status_code == 404


async def test_what_has_a_wrong_secret_is_counted_and_never_stored(world: World) -> None:
    async def counts() -> tuple[dict[str, int], dict[str, int]]:
        data = (await world.api.get("/api/v1/inbound")).json()["data"]
        return next(each for each in data["providers"] if each["name"] == "piapi"), data["updates"]

    task = await world.created(SILENT)
    await report(world, task, "processing")
    (before, updates), receipts = await counts(), await listed(world)
    for content in (b"a", b"b"):
        assert (await post(world, task, secret="wrong", content=content)).status_code == 401
    await report(world, task, "processing")
    await report(world, task, "completed", output=PICTURE)
    await post(world, task, content=b"no task")
    after, later = await counts()
    grown = {name: after[name] - before[name] for name in before if name != "name"}
    assert {name: count for name, count in grown.items() if count} == {"wrong_secret": 2, "stored": 2, "malformed": 1}
    assert {name: later[name] - updates[name] for name in later} == {"applied": 1, "unchanged": 1, "receipts": 0}
    assert len(await listed(world)) == len(receipts) + 1


async def test_counts_of_all_organizations_are_the_operator_s_alone(world: World) -> None:
    theirs = another_organization(world, owns_provider_account=True)
    data = (await world.api.get("/api/v1/inbound", headers=theirs)).json()["data"]
    assert data == {"object": "inbound", "providers": [], "updates": None}
