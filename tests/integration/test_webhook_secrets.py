"""Rotating a secret without an outage: both secrets sign during the overlap, and then only the new one."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import standardwebhooks

from receiver.domain.ids import new_id
from tests.fakes.rows import change, select
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.verifiers import WebhookVerificationError, verify_ed25519, verify_pi, verify_standard
from tests.fakes.world import World

OWN = "a-secret-that-a-user-chose"


async def rotate(world: World, webhook: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/rotate-secret", json=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def next_delivery(world: World) -> ReceivedDelivery:
    task_id = await world.created()
    await world.subscriber.until(lambda _: world.subscriber.of(task_id))
    return world.subscriber.of(task_id)[0]


def let_overlaps_end(world: World) -> None:
    """End the overlaps at once, as hours would."""
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    for row in select(world, "SELECT uid, retired_secrets FROM subscription WHERE retired_secrets IS NOT NULL"):
        retired = [{**each, "until": past} for each in orjson.loads(row["retired_secrets"])]
        change(
            world,
            "UPDATE subscription SET retired_secrets = ? WHERE uid = ?",
            orjson.dumps(retired).decode(),
            row["uid"],
        )


@pytest.mark.parametrize("form", ["standard", "cloudevents", "pi"])
async def test_during_the_overlap_the_old_and_the_new_secret_verify_and_then_the_new_one_alone(
    world: World, form: str
) -> None:
    webhook = await world.webhook(format=form, event_types=["task.created"])
    rotated = await rotate(world, webhook)
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != webhook["secret"]
    received = await next_delivery(world)
    for secret in (webhook["secret"], rotated["secret"]):
        verify_standard(secret, received)
    if form == "pi":
        verify_pi(rotated["secret"], received)
    let_overlaps_end(world)
    received = await next_delivery(world)
    verify_standard(rotated["secret"], received)
    with pytest.raises(WebhookVerificationError):
        verify_standard(webhook["secret"], received)


async def test_piapi_s_header_is_only_the_newest_secret(world: World) -> None:
    webhook = await world.webhook(format="piapi", event_types=["task.created"])
    rotated = await rotate(world, webhook)
    assert (await next_delivery(world)).headers["x-webhook-secret"] == rotated["secret"]


async def test_an_ed25519_key_is_rotated_to_another(world: World) -> None:
    webhook = await world.webhook(signature="v1a", event_types=["task.created"])
    rotated = await rotate(world, webhook)
    assert "secret" not in rotated
    assert rotated["public_key"] != webhook["public_key"]
    received = await next_delivery(world)
    for key in (webhook["public_key"], rotated["public_key"]):
        verify_ed25519(key, received)
    let_overlaps_end(world)
    received = await next_delivery(world)
    verify_ed25519(rotated["public_key"], received)
    with pytest.raises(AssertionError):
        verify_ed25519(webhook["public_key"], received)


async def test_the_new_secret_is_returned_once_and_is_in_no_row(world: World) -> None:
    webhook = await world.webhook()
    rotated = await rotate(world, webhook)
    shown = (await world.api.get(f"/api/v1/webhooks/{webhook['id']}")).json()["data"]
    assert shown == {name: value for name, value in rotated.items() if name != "secret"}
    rows = repr(select(world, "SELECT * FROM subscription"))
    assert webhook["secret"] not in rows
    assert rotated["secret"] not in rows


async def test_a_secret_that_the_user_chose_can_replace_the_old_at_once(world: World) -> None:
    webhook = await world.webhook(event_types=["task.created"])
    first = await rotate(world, webhook)
    await rotate(world, webhook, secret=f"whsec_{'A' * 43}=", overlap_seconds=0)
    received = await next_delivery(world)
    verify_standard(f"whsec_{'A' * 43}=", received)
    assert " " not in received.headers["webhook-signature"]
    for secret in (webhook["secret"], first["secret"]):
        with pytest.raises(WebhookVerificationError):
            verify_standard(secret, received)


async def test_a_patched_secret_replaces_all_others_at_once(world: World) -> None:
    webhook = await world.webhook(event_types=["task.created"])
    await rotate(world, webhook)
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"secret": OWN})
    assert " " not in (await next_delivery(world)).headers["webhook-signature"]


async def test_concurrent_rotations_all_succeed_and_few_retired_secrets_are_stored(world: World) -> None:
    webhook = await world.webhook(event_types=["task.created"])
    rotated = await asyncio.gather(*(rotate(world, webhook) for _ in range(8)))
    received = await next_delivery(world)
    assert len(received.headers["webhook-signature"].split(" ")) == 6
    valid = 0
    for each in rotated:
        try:
            verify_standard(each["secret"], received)
            valid += 1
        except WebhookVerificationError:
            continue
    assert valid == 6


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"overlap_seconds": -1}, "overlap_seconds"),
        ({"overlap_seconds": 604_801}, "overlap_seconds"),
        ({"overlap_seconds": "long"}, "overlap_seconds"),
        ({"overlap_seconds": True}, "overlap_seconds"),
        ({"overlap_seconds": None}, "overlap_seconds"),
        ({"secret": "short"}, "secret"),
        ({"secret": "whsec_c2hvcnQ="}, "secret"),
        ({"secret": 7}, "secret"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_bad_rotation_is_refused_by_its_field_and_changes_nothing(
    world: World, fields: dict[str, Any], field: str
) -> None:
    webhook = await world.webhook()
    before = select(world, "SELECT * FROM subscription")
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/rotate-secret", json=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert select(world, "SELECT * FROM subscription") == before


async def test_a_shared_secret_is_not_an_ed25519_key(world: World) -> None:
    webhook = await world.webhook(signature="v1a")
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/rotate-secret", json={"secret": OWN})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "secret")


@pytest.mark.parametrize("action", ["rotate-secret", "test"])
async def test_a_removed_or_unknown_webhook_is_a_404(world: World, action: str) -> None:
    webhook = await world.webhook()
    await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")
    for uid in (webhook["id"], new_id()):
        answer = await world.api.post(f"/api/v1/webhooks/{uid}/{action}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "webhook_id")


async def test_a_retired_secret_that_no_master_key_decrypts_delays_no_delivery(world: World) -> None:
    webhook = await world.webhook(event_types=["task.created"])
    rotated = await rotate(world, webhook)
    retired = orjson.dumps([{"secret": "x", "until": "2999-01-01T00:00:00+00:00"}]).decode()
    change(world, "UPDATE subscription SET retired_secrets = ? WHERE uid = ?", retired, webhook["id"])
    verify_standard(rotated["secret"], await next_delivery(world))


PI_SECRETS = [
    "whsec_my-own.secret",
    "whsec_" + "not base64 ü",
    "whsk_looks-like-a-private-key",
    "whpk_looks-like-a-public-key",
    "a line\nand another",
    "12345678",
    "x" * 500,
]


def verify_text_as_key(secret: str, received: ReceivedDelivery) -> None:
    """Verify both signatures of a delivery in Pi's format with the text of the secret as the key."""
    verify_pi(secret, received)
    standardwebhooks.Webhook(secret.encode()).verify(received.body, received.headers)


@pytest.mark.parametrize("secret", PI_SECRETS)
async def test_pi_s_webhook_takes_any_secret_of_8_to_500_characters(world: World, secret: str) -> None:
    answer = await world.api.post("/api/v1/webhooks", json={"endpoint_url": world.subscriber.url, "secret": secret})
    assert answer.status_code == 200, answer.text
    webhook = answer.json()["data"]
    assert webhook["format"] == "pi"
    assert "secret" not in webhook
    task_id = await world.created()
    await world.subscriber.until(lambda _: world.subscriber.of(task_id))
    verify_text_as_key(secret, world.subscriber.of(task_id)[0])


async def test_pi_s_secret_can_be_rotated_to_any_other(world: World) -> None:
    answer = await world.api.post(
        "/api/v1/webhooks", json={"endpoint_url": world.subscriber.url, "secret": "whsec_my-own.secret"}
    )
    await rotate(world, answer.json()["data"], secret="whsec_my-other.secret")
    task_id = await world.created()
    await world.subscriber.until(lambda _: world.subscriber.of(task_id))
    received = world.subscriber.of(task_id)[0]
    verify_text_as_key("whsec_my-other.secret", received)
    standardwebhooks.Webhook(b"whsec_my-own.secret").verify(received.body, received.headers)


@pytest.mark.parametrize("secret", ["x" * 7, "x" * 501])
async def test_pi_s_secret_has_8_to_500_characters(world: World, secret: str) -> None:
    answer = await world.api.post("/api/v1/webhooks", json={"endpoint_url": world.subscriber.url, "secret": secret})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "secret")


async def test_a_format_that_verifiers_of_standard_webhooks_read_takes_no_secret_that_they_could_not_read(
    world: World,
) -> None:
    odd = "whsec_my-own.secret"
    for fields in ({"format": "standard"}, {"format": "cloudevents"}, {"event_types": ["task.completed"]}):
        answer = await world.api.post(
            "/api/v1/webhooks", json={"endpoint_url": world.subscriber.url, "secret": odd, **fields}
        )
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "secret")
        assert odd not in answer.text
    webhook = await world.webhook(format="pi", secret=odd)
    path = f"/api/v1/webhooks/{webhook['id']}"
    answer = await world.api.patch(path, json={"format": "standard"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "secret")
    assert odd not in answer.text
    changed = await world.api.patch(path, json={"format": "standard", "secret": "plain text of mine"})
    assert changed.status_code == 200, changed.text
