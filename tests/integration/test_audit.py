"""The audit log: every administrative change, by whom, in the transaction of the change, and no secret."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import orjson
import pytest
import pytest_asyncio

from receiver.api import change_limit
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.settings import load_settings
from receiver.storage.database import Database
from receiver.workers.cleanup import Cleaner
from tests.fakes.organizations import another_organization
from tests.fakes.rows import DELIVERIES, change, eventually, select
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANTED = "planted-Vq8Zx3Km7TyW2rLc"
LONG_AGO = "2020-01-01T00:00:00Z"
NEVER_SENT = "http://127.0.0.1:9/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module."""
    async with in_process(tmp_path_factory.mktemp("world"), retention_days="0") as world:
        yield world


async def entries(world: World, **query: Any) -> list[dict[str, Any]]:
    answer = await world.api.get("/api/v1/audit", params={"limit": 200, **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"]["data"])


async def webhook(world: World, **fields: Any) -> dict[str, Any]:
    """Register a webhook that gets nothing by itself."""
    return await world.webhook(**{"endpoint_url": NEVER_SENT, "event_types": ["webhook.disabled"], **fields})


async def test_every_change_of_a_webhook_has_an_entry_with_who_and_what(world: World) -> None:
    made = await webhook(world, description="first", headers={"x-token": PLANTED}, secret=PLANTED)
    path = f"/api/v1/webhooks/{made['id']}"
    answers = [
        await world.api.patch(path, json={"description": "second", "headers": {"x-token": PLANTED + "2"}}),
        await world.api.patch(path, json={"description": "second"}),
        await world.api.post(f"{path}/rotate-secret"),
        await world.api.post(f"{path}/test"),
        await world.api.patch(path, json={"is_active": False}),
        await world.api.delete(path),
    ]
    assert {answer.status_code for answer in answers} == {200}
    found = await entries(world, target=made["id"])
    actions = ["remove", "change", "test", "rotate", "change", "create"]
    assert [entry["action"] for entry in found] == [f"webhook.{action}" for action in actions]
    assert found[4]["before"] == {"description": "first", "headers": "set"}
    assert found[4]["after"] == {"description": "second", "headers": "changed"}
    assert found[3]["after"] == {"secret": "changed"}
    assert (found[1]["before"], found[1]["after"]) == ({"is_active": True}, {"is_active": False})
    assert found[5]["before"] is None
    assert found[5]["after"]["endpoint_url"] == NEVER_SENT
    assert found[0]["after"] is None
    kept = [answers[index] for index in (5, 4, 3, 2, 0)]
    assert [entry["request_id"] for entry in found[:5]] == [answer.headers["x-request-id"] for answer in kept]
    for entry in found:
        assert entry["actor"] == f"RINGBACK_API_KEY ({API_KEY[:7]}...)"
        assert entry["address"] == "127.0.0.1"
        assert entry["object"] == "audit_entry"


async def test_keys_have_entries_and_are_named_in_what_they_do(world: World) -> None:
    key = (await world.api.post("/api/v1/keys", json={"name": "robot", "scope": "admin"})).json()["data"]
    headers = {"x-api-key": key["key"]}
    another = (await world.api.post("/api/v1/keys", json={"name": "two"}, headers=headers)).json()["data"]
    assert (await world.api.delete(f"/api/v1/keys/{key['id']}")).status_code == 200
    by_it = await entries(world, key_id=key["id"])
    assert [(each["action"], each["target"]) for each in by_it] == [("key.create", another["id"])]
    assert by_it[0]["actor"] == f"robot ({key['hint']}...)"
    assert by_it[0]["after"] == {"name": "two", "scope": "write", "hint": another["hint"]}
    assert [each["action"] for each in await entries(world, target=key["id"])] == ["key.revoke", "key.create"]


async def test_the_setting_and_the_service_are_actors_too(world: World) -> None:
    (first,) = [each for each in await entries(world) if each["actor"].startswith("setting ")]
    assert (first["action"], first["actor"], first["key_id"]) == ("key.create", "setting RINGBACK_API_KEY", None)
    world.subscriber.answer = lambda _number, _request: 410
    gone = await world.webhook(event_types=["task.created"])
    await world.created({"outcome": "never", "webhook": "lost"})
    await eventually(world, "SELECT * FROM audit_entry WHERE action = 'webhook.disable'", lambda rows: len(rows) == 1)
    (entry,) = await entries(world, action="webhook.disable")
    assert (entry["actor"], entry["target"], entry["address"]) == ("ringback", gone["id"], None)
    assert entry["after"] == {"is_active": False, "disabled_reason": "gone"}


async def test_sending_again_has_entries(world: World) -> None:
    world.subscriber.answer = lambda _number, _request: 200
    made = await world.webhook(event_types=["task.created"])
    await world.created({"outcome": "never", "webhook": "lost"})
    await eventually(
        world, DELIVERIES, lambda rows: any(row["webhook"] == made["id"] and row["settled_at"] for row in rows)
    )
    path = f"/api/v1/webhooks/{made['id']}"
    (delivery,) = (await world.api.get(f"{path}/deliveries")).json()["data"]["data"]
    assert (await world.api.post(f"/api/v1/deliveries/{delivery['id']}/retry")).status_code == 202
    for verb in ("replay", "recover"):
        replay = (await world.api.post(f"{path}/{verb}", json={"since": LONG_AGO})).json()["data"]
        (entry,) = await entries(world, action=f"webhook.{verb}", target=replay["id"])
        assert entry["after"]["webhook_id"] == made["id"]
        if (await world.api.delete(f"{path}/replays/{replay['id']}")).status_code == 200:
            assert (await entries(world, target=replay["id"]))[0]["action"] == "replay.cancel"
    (entry,) = await entries(world, action="delivery.retry")
    assert (entry["target"], entry["after"]) == (delivery["id"], {"status": "pending"})


async def test_no_secret_is_in_any_row(world: World) -> None:
    made = await webhook(
        world,
        endpoint_url=f"http://127.0.0.1:9/{PLANTED}?token={PLANTED}",
        secret=PLANTED,
        headers={"authorization": f"Bearer {PLANTED}"},
    )
    key = (await world.api.post("/api/v1/keys", json={"name": "k"})).json()["data"]["key"]
    await world.api.post(f"/api/v1/webhooks/{made['id']}/rotate-secret", json={"secret": f"{PLANTED}-again"})
    rows = select(world, "SELECT * FROM audit_entry")
    text = orjson.dumps(rows, default=str).decode()
    assert made["id"] in text
    for secret in (PLANTED, key, API_KEY):
        assert secret not in text


async def test_a_change_whose_entry_cannot_be_written_is_not_made(world: World) -> None:
    made = await webhook(world, description="as it was")
    path = f"/api/v1/webhooks/{made['id']}"
    change(world, "ALTER TABLE audit_entry RENAME TO audit_entry_aside")
    try:
        refused = await world.api.patch(path, json={"description": "changed"})
        assert refused.status_code >= 500
        assert (await world.api.post("/api/v1/keys", json={"name": "unlogged"})).status_code >= 500
    finally:
        change(world, "ALTER TABLE audit_entry_aside RENAME TO audit_entry")
    assert (await world.api.get(path)).json()["data"]["description"] == "as it was"
    assert select(world, "SELECT * FROM api_key WHERE name = 'unlogged'") == []
    assert [each["action"] for each in await entries(world, target=made["id"])] == ["webhook.create"]


async def test_a_refused_change_has_no_entry(world: World) -> None:
    made = await webhook(world)
    path = f"/api/v1/webhooks/{made['id']}"
    assert (await world.api.patch(path, json={"format": "pi", "signature": "v1a"})).status_code == 400
    assert (await world.api.delete(f"/api/v1/keys/{new_id()}")).status_code == 404
    assert [each["action"] for each in await entries(world, target=made["id"])] == ["webhook.create"]


async def test_a_change_beyond_the_limit_is_refused_and_leaves_no_entry(world: World) -> None:
    theirs = another_organization(world)
    body = {"endpoint_url": NEVER_SENT, "event_types": ["webhook.disabled"]}
    with patch.multiple(change_limit, MOST_AT_ONCE=2, SECONDS_EACH=60.0):
        made = (await world.api.post("/api/v1/webhooks", json=body, headers=theirs)).json()["data"]
        path = f"/api/v1/webhooks/{made['id']}"
        allowed = await world.api.patch(path, json={"description": "first"}, headers=theirs)
        refused = await world.api.patch(path, json={"description": "second"}, headers=theirs)
    assert (allowed.status_code, refused.status_code) == (200, 429)
    assert int(refused.headers["retry-after"]) > 0
    shown = (await world.api.get("/api/v1/audit", headers=theirs)).json()["data"]["data"]
    assert [each["action"] for each in shown] == ["webhook.change", "webhook.create"]


async def test_an_organization_sees_its_own_entries_alone(world: World) -> None:
    theirs = another_organization(world)
    made = (await world.api.post("/api/v1/keys", json={"name": "theirs"}, headers=theirs)).json()["data"]
    shown = (await world.api.get("/api/v1/audit", headers=theirs)).json()["data"]["data"]
    assert [each["target"] for each in shown] == [made["id"]]
    assert await entries(world, target=made["id"]) == []
    mine = (await entries(world, action="key.create"))[0]["key_id"]
    if mine is not None:
        answer = await world.api.get("/api/v1/audit", params={"key_id": mine}, headers=theirs)
        assert answer.status_code == 404


async def test_the_list_has_pages_and_filters_by_time(world: World) -> None:
    for number in range(3):
        await webhook(world, description=f"number {number}")
    whole = await entries(world)
    page = (await world.api.get("/api/v1/audit", params={"limit": 2})).json()["data"]
    more = await entries(world, limit=2, cursor=page["next_cursor"])
    assert [*page["data"], *more] == whole[:4]
    assert await entries(world, since=whole[2]["created_at"]) == whole[:2]
    assert await entries(world, until=whole[2]["created_at"]) == whole[3:]
    for query in ({"since": "2024", "until": "2023"}, {"key_id": "x"}, {"colour": "red"}):
        assert (await world.api.get("/api/v1/audit", params=query)).status_code == 400


async def test_only_an_admin_key_reads_it(world: World) -> None:
    key = (await world.api.post("/api/v1/keys", json={"name": "w", "scope": "write"})).json()["data"]["key"]
    assert (await world.api.get("/api/v1/audit", headers={"x-api-key": key})).status_code == 403


async def test_entries_are_purged_after_their_own_time(world: World) -> None:
    await webhook(world)
    count = len(select(world, "SELECT * FROM audit_entry"))
    async with await Database.open(load_settings(world.environment, env_file=None)) as database:
        now = utc_now()
        kept = Cleaner(database, retention_days=0, audit_days=0)
        assert "audit_entries" not in await kept.clean(now + timedelta(days=5000))
        cleaner = Cleaner(database, retention_days=0, audit_days=365)
        assert "audit_entries" not in await cleaner.clean(now + timedelta(days=364))
        assert (await cleaner.clean(now + timedelta(days=366)))["audit_entries"] == count
