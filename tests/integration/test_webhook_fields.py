"""Ringback's own fields of a webhook: which values are refused, and what the API returns."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.rows import change, select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANTED = "a-planted-header-value"
FULL: dict[str, Any] = {
    "format": "cloudevents",
    "event_types": ["task.*", "webhook.disabled"],
    "filters": {"model": "Qubico/flux1-schnell", "metadata": {"customer": 7}},
    "headers": {"X-Tenant": PLANTED, "Authorization": f"Bearer {PLANTED}"},
    "description": "mine",
    "rate_limit": 2.5,
    "max_in_flight": 3,
    "ordered": True,
    "signature": "v1",
}
BAD = [
    ({"event_types": []}, "event_types", "at least one"),
    ({"event_types": ["task.exploded"]}, "event_types", "task.completed"),
    ({"event_types": ["ping"]}, "event_types", "ping"),
    ({"format": "xml"}, "format", "'cloudevents'"),
    ({"filters": {"colour": "red"}}, "filters.colour", "model, task_type, run_id and metadata"),
    ({"filters": {"run_id": "x"}}, "filters.run_id", "UUID"),
    ({"filters": {"model": []}}, "filters.model", "1 to 50"),
    ({"filters": {"model": ["m"] * 51}}, "filters.model", "1 to 50"),
    ({"filters": {"task_type": 7}}, "filters.task_type", "string"),
    ({"filters": {"metadata": {"a": {}}}}, "filters.metadata.a", "string"),
    ({"filters": "model"}, "filters", "dictionary"),
    ({"headers": {"Webhook-Id": "x"}}, "headers.Webhook-Id", "webhook-*"),
    ({"headers": {"Content-Type": "text/plain"}}, "headers.Content-Type", "content-type"),
    ({"headers": {"Transfer-Encoding": "chunked"}}, "headers.Transfer-Encoding", "transfer-encoding"),
    ({"headers": {"X-A": "a\r\nX-B: b"}}, "headers.X-A", "control characters"),
    ({"headers": {"größe": "a"}}, "headers.größe", "ASCII"),
    ({"headers": {"X-A": 7}}, "headers.X-A", "string"),
    ({"headers": {"X-A": "***"}}, "headers.X-A", "send the value"),
    ({"headers": {f"X-{number}": "a" for number in range(21)}}, "headers", "at most 20"),
    ({"headers": ["X-A"]}, "headers", "dictionary"),
    ({"description": "d" * 501}, "description", "500"),
    ({"rate_limit": 0}, "rate_limit", "greater than 0"),
    ({"rate_limit": -1}, "rate_limit", "greater than 0"),
    ({"rate_limit": 10_001}, "rate_limit", "10000"),
    ({"rate_limit": "5"}, "rate_limit", "number"),
    ({"rate_limit": True}, "rate_limit", "number"),
    ({"max_in_flight": 0}, "max_in_flight", "1"),
    ({"max_in_flight": 1001}, "max_in_flight", "1000"),
    ({"max_in_flight": 1.5}, "max_in_flight", "integer"),
    ({"max_in_flight": True}, "max_in_flight", "integer"),
    ({"ordered": "yes"}, "ordered", "boolean"),
    ({"signature": "v2"}, "signature", "'v1a'"),
    ({"signature": "v1a", "format": "pi"}, "signature", "standard and cloudevents"),
    ({"signature": "v1a", "format": "piapi"}, "signature", "standard and cloudevents"),
    ({"signature": "v1a", "secret": "a shared secret"}, "secret", "whsk_"),
    ({"secret": "short"}, "secret", "8 to 500"),
    ({"format": "standard", "secret": "eight\nlines"}, "secret", "control"),
    ({"format": "standard", "secret": "whsk_" + "A" * 43 + "="}, "secret", "v1"),
    ({"colour": "red"}, "colour", "not permitted"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


async def view_of(world: World, webhook: dict[str, Any]) -> dict[str, Any]:
    answer = await world.api.get(f"/api/v1/webhooks/{webhook['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def patch(world: World, webhook: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def test_all_given_fields_are_returned_except_the_values_of_headers(world: World) -> None:
    webhook = await world.webhook(**FULL)
    assert webhook.pop("secret").startswith("whsec_")
    assert webhook["filters"] == {"model": ["Qubico/flux1-schnell"], "metadata": {"customer": [7]}}
    assert webhook["headers"] == {"X-Tenant": "***", "Authorization": "***"}
    assert "webhook.disabled" in webhook["event_types"]
    for name in ("format", "description", "rate_limit", "max_in_flight", "ordered", "signature"):
        assert webhook[name] == FULL[name]
    assert (webhook["failing_since"], webhook["disabled_reason"]) == (None, None)
    assert await view_of(world, webhook) == webhook
    assert (await world.api.get("/api/v1/webhooks")).json()["data"]["data"][0] == webhook


async def test_values_of_headers_are_in_no_row_and_no_response(world: World) -> None:
    webhook = await world.webhook(**FULL)
    (row,) = select(world, "SELECT * FROM subscription WHERE uid = ?", webhook["id"])
    assert PLANTED not in repr(row)
    assert PLANTED not in repr([webhook, await view_of(world, webhook), await patch(world, webhook, description="x")])


async def test_only_pi_s_fields_make_a_webhook_like_pi_s_and_any_other_field_ringback_s_own(world: World) -> None:
    pi = await world.webhook(secret="a-secret-of-mine")
    assert (pi["format"], pi["event_types"]) == ("pi", ["task.completed", "task.failed"])
    for fields in ({"filters": {"model": "m"}}, {"description": "d"}, {"ordered": False}):
        assert (await world.webhook(secret="a-secret-of-mine", **fields))["format"] == "standard"
    nulls = {"format": None, "event_types": None, "headers": None, "signature": None}
    assert (await world.webhook(secret="a-secret-of-mine", **nulls))["format"] == "pi"


@pytest.mark.parametrize(
    ("fields", "field", "allowed"), BAD, ids=[f"{field} {fields}"[:60] for fields, field, _ in BAD]
)
async def test_a_wrong_field_is_refused_by_its_name_with_the_allowed_values(
    world: World, fields: dict[str, Any], field: str, allowed: str
) -> None:
    known = len(select(world, "SELECT uid FROM subscription"))
    answer = await world.api.post("/api/v1/webhooks", json={"endpoint_url": world.subscriber.url, **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", field)
    assert allowed in error["message"]
    assert len(select(world, "SELECT uid FROM subscription")) == known


@pytest.mark.parametrize(
    ("fields", "field", "allowed"), BAD, ids=[f"{field} {fields}"[:60] for fields, field, _ in BAD]
)
async def test_a_wrong_change_is_refused_likewise_and_changes_nothing(
    world: World, fields: dict[str, Any], field: str, allowed: str
) -> None:
    webhook = await world.webhook()
    before = await view_of(world, webhook)
    answer = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"description": "new", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field)
    assert allowed in error["message"]
    assert await view_of(world, webhook) == before


@pytest.mark.parametrize("name", ["endpoint_url", "secret", "format", "ordered", "signature", "is_active"])
async def test_a_field_that_cannot_be_null_is_not_reset(world: World, name: str) -> None:
    webhook = await world.webhook()
    answer = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={name: None})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


async def test_each_field_can_be_changed_and_null_resets_it(world: World) -> None:
    webhook = await world.webhook()
    fresh = await view_of(world, webhook)
    changed = await patch(world, webhook, **FULL)
    assert changed["headers"] == {"X-Tenant": "***", "Authorization": "***"}
    assert {name: changed[name] for name in ("format", "rate_limit", "max_in_flight", "ordered", "description")} == {
        name: FULL[name] for name in ("format", "rate_limit", "max_in_flight", "ordered", "description")
    }
    assert await view_of(world, webhook) == changed
    optional = ("event_types", "filters", "headers", "description", "rate_limit", "max_in_flight")
    again = await patch(world, webhook, **dict.fromkeys(optional), format="standard", ordered=False)
    assert {**again, "updated_at": None} == {**fresh, "updated_at": None}


async def test_a_header_sent_back_as_it_was_returned_keeps_its_value(world: World) -> None:
    webhook = await world.webhook(event_types=["task.created"], headers={"X-Tenant": PLANTED, "X-Old": "old"})
    changed = await patch(world, webhook, headers={"X-Tenant": "***", "X-New": "new"})
    assert changed["headers"] == {"X-Tenant": "***", "X-New": "***"}
    task_id = await world.created()
    await world.subscriber.until(lambda _: world.subscriber.of(task_id))
    (told,) = (received for received in world.subscriber.of(task_id) if "x-tenant" in received.headers)
    assert (told.headers["x-tenant"], told.headers["x-new"]) == (PLANTED, "new")
    assert "x-old" not in told.headers
    await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")


async def test_activating_a_webhook_clears_the_reason_why_it_was_disabled(world: World) -> None:
    webhook = await world.webhook()
    change(
        world,
        "UPDATE subscription SET is_active = false, failing_since = '2026-01-01 00:00:00.000000', "
        "disabled_reason = 'failing' WHERE uid = ?",
        webhook["id"],
    )
    off = await view_of(world, webhook)
    assert off["is_active"] is False
    assert (off["failing_since"], off["disabled_reason"]) == ("2026-01-01T00:00:00.000000Z", "failing")
    assert (await patch(world, webhook, description="still off"))["disabled_reason"] == "failing"
    on = await patch(world, webhook, is_active=True)
    assert (on["is_active"], on["failing_since"], on["disabled_reason"]) == (True, None, None)


async def test_another_signature_scheme_makes_another_secret(world: World) -> None:
    webhook = await world.webhook()
    key = await patch(world, webhook, signature="v1a")
    assert key["public_key"].startswith("whpk_")
    assert "secret" not in key
    assert await patch(world, webhook, signature="v1a") == {
        **key,
        "updated_at": (await view_of(world, key))["updated_at"],
    }
    answer = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"format": "piapi"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "format")
    shared = await patch(world, webhook, signature="v1", format="piapi")
    assert shared["secret"].startswith("whsec_")
    assert "public_key" not in shared


async def test_a_webhook_whose_master_key_is_gone_is_returned_and_can_be_repaired(world: World) -> None:
    webhook = await world.webhook(headers={"X-Tenant": "a"}, signature="v1a")
    change(world, "UPDATE subscription SET headers = 'x', secret = 'x' WHERE uid = ?", webhook["id"])
    broken = await view_of(world, webhook)
    assert (broken["headers"], broken["public_key"]) == (None, None)
    tried = (await world.api.post(f"/api/v1/webhooks/{webhook['id']}/test")).json()
    assert tried["error"]["code"] == "master_key_missing"
    await patch(world, webhook, headers={"X-Tenant": "b"})
    rotated = (await world.api.post(f"/api/v1/webhooks/{webhook['id']}/rotate-secret")).json()["data"]
    assert rotated["headers"] == {"X-Tenant": "***"}
    assert rotated["public_key"].startswith("whpk_")
    tried = (await world.api.post(f"/api/v1/webhooks/{webhook['id']}/test")).json()["data"]
    assert tried["delivered"] is True


async def test_a_new_origin_gets_only_header_values_that_are_given_again(world: World) -> None:
    webhook = await world.webhook(headers={"X-Tenant": PLANTED}, event_types=["task.created"])
    moved = f"{world.subscriber.url.replace('127.0.0.1', 'localhost')}"
    path = f"/api/v1/webhooks/{webhook['id']}"
    refused = await world.api.patch(path, json={"endpoint_url": moved})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "headers_required")
    assert (await view_of(world, webhook))["endpoint_url"] == world.subscriber.url
    assert (await patch(world, webhook, endpoint_url=f"{world.subscriber.url}?b"))["headers"] == {"X-Tenant": "***"}
    await patch(world, webhook, endpoint_url=moved, headers={"X-Other": "given again"})
    await world.api.post(f"{path}/test")
    received = world.subscriber.received[-1].headers
    assert (received.get("x-tenant"), received["x-other"]) == (None, "given again")
    refused = await world.api.patch(path, json={"format": "piapi"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "secret_required")


async def test_two_concurrent_changes_are_both_stored(world: World) -> None:
    import asyncio

    webhook = await world.webhook()
    await asyncio.gather(
        patch(world, webhook, description="a"),
        patch(world, webhook, rate_limit=5),
        patch(world, webhook, filters={"model": "m"}),
    )
    now = await view_of(world, webhook)
    assert (now["description"], now["rate_limit"], now["filters"]) == ("a", 5, {"model": ["m"]})
