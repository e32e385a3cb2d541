"""`/api/v1/webhooks`: registering callback URLs (`receiver/api/CONTRACTS.md`)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.requests import Request

from receiver.domain.ids import new_id
from tests.fakes.rows import DELIVERIES, eventually, select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = "https://1.1.1.1/told"
LASTING = {"pending_seconds": 60.0}
FORBIDDEN = {
    "http://1.1.1.1/": "https://",
    "ftp://1.1.1.1/": "https://",
    "//1.1.1.1/": "https://",
    "": "https://",
    "not a url": "white space",
    "https://": "host",
    "https:///path": "host",
    "https://1.1.1.1:0/": "port",
    "https://1.1.1.1:99999/": "port",
    "https://user:password@1.1.1.1/": "user name",
    "https://1.1.1.1/\n": "white space",
    "https://1.1.1.1\\@example.com/": "backslashes",
    "https://127.0.0.1/": "127.0.0.1 is not public",
    "https://10.0.0.1/": "10.0.0.1 is not public",
    "https://192.168.1.1:8443/": "192.168.1.1 is not public",
    "https://169.254.169.254/latest/meta-data/": "169.254.169.254 is not public",
    "https://0.0.0.0/": "0.0.0.0 is not public",
    "https://[::1]/": "::1 is not public",
    "https://[::ffff:127.0.0.1]/": "is not public",
    "https://[fd00::1]/": "fd00::1 is not public",
    "https://[64:ff9b::7f00:1]/": "is not public",
    "https://2130706433/": "usual form",
    "https://0x7f.1/": "usual form",
    "https://127.1/": "usual form",
    "https://localhost/": "is not public",
    "https://no-such-host.invalid/": "does not resolve",
    "https://exa mple.com/": "white space",
    "https://-.-/": "does not resolve",
    "https://" + "a" * 64 + ".com/": "not a valid name",
    "https://1.1.1.1/" + "a" * 2048: "at most 2048",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module, with the address guard as in production."""
    async with in_process(tmp_path_factory.mktemp("world"), allow_private_targets="false") as world:
        yield world


async def register(world: World, **fields: Any) -> dict[str, Any]:
    return await world.webhook(**{"endpoint_url": PUBLIC, **fields})


@pytest.mark.parametrize(("url", "rule"), FORBIDDEN.items(), ids=[url[:50] for url in FORBIDDEN])
async def test_a_forbidden_url_is_refused_by_the_rule_that_it_breaks(world: World, url: str, rule: str) -> None:
    known = len(select(world, "SELECT uid FROM subscription"))
    answer = await world.api.post("/api/v1/webhooks", json={"endpoint_url": url})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_endpoint_url", "endpoint_url")
    assert rule in error["message"]
    created = await world.create(config={"webhook_config": {"endpoint": url, "secret": "s"}}) if url else answer
    assert created.status_code == 400
    assert len(select(world, "SELECT uid FROM subscription")) == known


async def test_a_refused_callback_is_named_in_piapi_s_form_and_the_provider_is_not_called(world: World) -> None:
    before = (await world.provider_stats())["created"]
    answer = await world.create(config={"webhook_config": {"endpoint": "https://127.0.0.1/", "secret": "s"}})
    message = "config.webhook_config.endpoint: 127.0.0.1 is not public"
    assert (answer.status_code, answer.json()) == (400, {"code": 400, "data": None, "message": message})
    assert (await world.provider_stats())["created"] == before


async def test_a_secret_that_ringback_made_is_returned_once_and_never_again(world: World) -> None:
    webhook = await register(world)
    assert webhook["secret"].startswith("whsec_")
    assert (webhook["format"], webhook["is_active"]) == ("standard", True)
    assert set(webhook["event_types"]) == {"task.completed", "task.failed", "task.cancelled"}
    shown = {name: value for name, value in webhook.items() if name != "secret"}
    assert (await world.api.get(f"/api/v1/webhooks/{webhook['id']}")).json()["data"] == shown
    assert (await world.api.get("/api/v1/webhooks")).json()["data"]["data"][0] == shown
    changed = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"description": "mine"})
    assert "secret" not in changed.json()["data"]
    (row,) = select(world, "SELECT secret FROM subscription WHERE uid = ?", webhook["id"])
    assert webhook["secret"] not in row["secret"]


async def test_with_only_pi_s_fields_a_webhook_behaves_like_pi_s(world: World) -> None:
    webhook = await register(world, secret="a-secret-of-mine")
    assert "secret" not in webhook
    assert (webhook["object"], webhook["format"]) == ("webhook", "pi")
    assert set(webhook["event_types"]) == {"task.completed", "task.failed"}


@pytest.mark.parametrize("form", ["standard", "pi", "piapi"])
async def test_a_format_can_be_chosen(world: World, form: str) -> None:
    webhook = await register(world, format=form, event_types=["job.completed", "task.updated"])
    assert webhook["format"] == form
    assert set(webhook["event_types"]) == {"task.completed", "task.updated"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"secret": "short"}, "secret"),
        ({"secret": "s" * 501}, "secret"),
        ({"secret": 5}, "secret"),
        ({"format": "standard", "secret": "whsec_not base64!"}, "secret"),
        ({"format": "standard", "secret": "whsec_c2hvcnQ="}, "secret"),
        ({"format": "xml"}, "format"),
        ({"event_types": ["task.exploded"]}, "event_types"),
        ({"event_types": []}, "event_types"),
        ({"event_types": "task.completed"}, "event_types"),
        ({"description": "d" * 501}, "description"),
        ({"colour": "red"}, "colour"),
        ({"endpoint_url": 5}, "endpoint_url"),
        ({"endpoint_url": None}, "endpoint_url"),
    ],
)
async def test_a_bad_field_is_refused_by_its_name(world: World, fields: dict[str, Any], field: str) -> None:
    answer = await world.api.post("/api/v1/webhooks", json={"endpoint_url": PUBLIC, **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].partition(".")[0] == field


async def test_webhooks_are_listed_newest_first_page_by_page(world: World) -> None:
    mine = [(await register(world))["id"] for _ in range(3)]
    first = (await world.api.get("/api/v1/webhooks", params={"limit": 2})).json()["data"]
    query = {"limit": 1, "cursor": first["next_cursor"]}
    second = (await world.api.get("/api/v1/webhooks", params=query)).json()["data"]
    assert [webhook["id"] for webhook in first["data"] + second["data"]] == mine[::-1]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_webhook_is_a_404(world: World, method: str) -> None:
    answer = await world.api.request(method, f"/api/v1/webhooks/{new_id()}", json={"is_active": False})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "webhook_id")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "no_changes"),
        ({"is_active": "no"}, "invalid_request_body"),
        ({"secret": "short"}, "invalid_request_body"),
        ({"secret": None}, "invalid_request_body"),
        ({"endpoint_url": "https://127.0.0.1/"}, "invalid_endpoint_url"),
        ({"endpoint_url": ""}, "invalid_endpoint_url"),
        ({"event_types": ["x"]}, "invalid_request_body"),
        ({"id": "x"}, "invalid_request_body"),
    ],
)
async def test_a_bad_change_is_refused_and_changes_nothing(world: World, change: dict[str, Any], code: str) -> None:
    webhook = await register(world)
    answer = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json=change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    shown = (await world.api.get(f"/api/v1/webhooks/{webhook['id']}")).json()["data"]
    assert shown == {name: value for name, value in webhook.items() if name != "secret"}


async def test_changes_are_stored(world: World) -> None:
    webhook = await register(world)
    change = {"endpoint_url": "https://8.8.8.8/x", "format": "pi", "event_types": ["task.failed"], "is_active": False}
    changed = (await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json=change)).json()["data"]
    assert changed.items() >= change.items()
    assert changed["updated_at"] > webhook["updated_at"]
    assert (await world.api.get(f"/api/v1/webhooks/{webhook['id']}")).json()["data"] == changed


async def test_an_inactive_webhook_is_sent_nothing_until_it_is_active_again(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,0.2,0.2,0.2,0.2,0.2,0.2,0.2,0.2,0.2,0.2,0.2,0.2") as world:
        webhook = await world.webhook()
        world.subscriber.answer = lambda _number, _request: 500
        task_id = await world.created()
        await world.subscriber.until(lambda received: received)
        await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": False})
        await eventually(world, DELIVERIES, lambda rows: rows[0]["due_at"] is None)
        received = len(world.subscriber.received)
        later = await world.created()
        await world.ended(later)
        assert len(world.subscriber.received) == received
        assert [row["status"] for row in select(world, DELIVERIES)] == ["pending"]
        world.subscriber.answer = lambda _number, _request: 200
        await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": True})
        await world.subscriber.until(lambda _: world.subscriber.accepted)
        assert world.subscriber.accepted[0].json["data"]["task_id"] == task_id
        assert not world.subscriber.of(later)


async def test_a_removed_webhook_is_sent_nothing_and_its_pending_deliveries_are_cancelled(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,0.3,0.3") as world:
        webhook = await world.webhook()
        world.subscriber.answer = lambda _number, _request: 500
        await world.created()
        await world.subscriber.until(lambda received: received)
        removed = await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")
        assert removed.json()["data"] == {"object": "webhook", "id": webhook["id"], "deleted": True}
        (row,) = select(world, DELIVERIES)
        assert (row["status"], row["due_at"]) == ("cancelled", None)
        assert (await world.api.get(f"/api/v1/webhooks/{webhook['id']}")).status_code == 404
        assert (await world.api.get("/api/v1/webhooks")).json()["data"]["data"] == []
        other = await world.webhook(endpoint_url=f"{world.subscriber.base}/other")
        world.subscriber.answer = lambda _number, _request: 200
        await world.created()
        await world.subscriber.until(lambda _: world.subscriber.accepted)
        assert {received.path for received in world.subscriber.accepted} == {"/other"}
        assert {row["webhook"] for row in select(world, DELIVERIES) if row["status"] != "cancelled"} == {other["id"]}


async def test_a_response_after_the_removal_settles_nothing(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        webhook, arrived, gate = await world.webhook(), asyncio.Event(), asyncio.Event()

        async def late() -> int:
            arrived.set()
            await gate.wait()
            return 500

        def answer(_number: int, _request: Request) -> Any:
            return late()

        world.subscriber.answer = answer
        await world.created()
        await arrived.wait()
        await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")
        gate.set()
        await eventually(world, "SELECT * FROM delivery_attempt", lambda rows: rows)
        (row,) = select(world, DELIVERIES)
        assert (row["status"], row["due_at"]) == ("cancelled", None)
