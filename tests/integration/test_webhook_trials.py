"""`POST /api/v1/webhooks/{id}/test`: sends a signed ping now, and returns the response."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from tests.fakes.rows import eventually, select
from tests.fakes.verifiers import verify_ed25519, verify_pi, verify_standard
from tests.fakes.world import World, in_process

PLANTED = "a-planted-header-value"
BEARER = "planted-bearer-token"


async def tried(world: World, webhook: dict[str, Any]) -> dict[str, Any]:
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/test")
    assert (answer.status_code, answer.json()["object"]) == (200, "test")
    return dict(answer.json()["data"])


@pytest.mark.parametrize("form", ["standard", "pi", "piapi", "cloudevents"])
async def test_a_ping_is_signed_like_any_delivery(world: World, form: str) -> None:
    webhook = await world.webhook(format=form, headers={"X-Tenant": PLANTED})
    result = await tried(world, webhook)
    assert (result["delivered"], result["status_code"], result["error"]) == (True, 200, None)
    assert result["response"] == "heard"
    assert result["duration_ms"] >= 0
    (received,) = world.subscriber.received
    assert received.headers["x-tenant"] == PLANTED
    assert received.json["type"] == "ping"
    assert received.json["data"]["webhook"]["id"] == webhook["id"]
    assert (result["event_id"], result["request"]["body"]) == (received.event_id, received.json)
    if form == "piapi":
        assert received.headers["x-webhook-secret"] == webhook["secret"]
    else:
        verify_standard(webhook["secret"], received)
    if form == "pi":
        verify_pi(webhook["secret"], received)
        assert received.headers["x-pi-event"] == "ping"


async def test_the_returned_request_has_neither_secret_nor_signature(world: World) -> None:
    for form in ("standard", "pi", "piapi"):
        webhook = await world.webhook(format=form, headers={"X-Tenant": PLANTED})
        result = await tried(world, webhook)
        received = world.subscriber.received[-1]
        assert result["request"]["headers"].keys() >= {"content-type", "webhook-id", "X-Tenant"}
        hidden = {"webhook-signature", "x-pi-signature", "x-webhook-secret", "x-tenant"}
        for value in (received.headers[name] for name in hidden & received.headers.keys()):
            assert value not in repr(result)


async def test_a_response_that_echoes_secrets_is_stored_and_returned_without_them(world: World) -> None:
    world.subscriber.answer = lambda _number, request: Response(f"got {dict(request.headers)} {BEARER}", 200)
    secret = "a-secret-for-piapi"
    webhook = await world.webhook(
        format="piapi",
        secret=secret,
        headers={"X-Tenant": PLANTED, "Authorization": f"Bearer {BEARER}"},
        event_types=["task.created"],
    )
    result = await tried(world, webhook)
    await world.created()
    (attempt,) = await eventually(world, "SELECT response FROM delivery_attempt", bool)
    for response in (result["response"], attempt["response"]):
        assert "'x-webhook-secret': '***'" in response
        assert "'x-tenant': '***'" in response
        assert secret not in response
        assert PLANTED not in response
        assert BEARER not in response
    # One that is cut in the midst of a secret.
    world.subscriber.answer = lambda _number, _request: Response("x" * (4096 - 12) + secret, 200)
    assert (await tried(world, webhook))["response"].endswith("x***")


async def test_an_ed25519_ping_verifies(world: World) -> None:
    webhook = await world.webhook(signature="v1a")
    await tried(world, webhook)
    verify_ed25519(webhook["public_key"], world.subscriber.received[0])


async def test_a_failure_is_returned_and_nothing_is_stored_or_retried(world: World) -> None:
    webhook = await world.webhook()
    world.subscriber.answer = lambda _number, _request: Response("no such thing", 404)
    result = await tried(world, webhook)
    assert (result["delivered"], result["status_code"], result["response"]) == (False, 404, "no such thing")
    unreachable = await world.webhook(endpoint_url="http://127.0.0.1:9/told")
    result = await tried(world, unreachable)
    assert (result["delivered"], result["status_code"], result["error"]) == (False, None, "connection refused")
    assert select(world, "SELECT * FROM delivery") == select(world, "SELECT * FROM event") == []
    shown = (await world.api.get(f"/api/v1/webhooks/{webhook['id']}")).json()["data"]
    assert (shown["is_active"], shown["failing_since"]) == (True, None)


async def test_an_inactive_webhook_can_be_tested(world: World) -> None:
    webhook = await world.webhook()
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": False})
    assert (await tried(world, webhook))["delivered"] is True


async def test_tests_of_an_endpoint_that_hangs_delay_no_delivery(tmp_path: Path) -> None:
    async with in_process(tmp_path, delivery_timeout_seconds="1") as world:
        world.subscriber.answer = lambda _number, request: (
            world.subscriber.hang() if request.url.path == "/hangs" else 200
        )
        hangs = await world.webhook(endpoint_url=f"{world.subscriber.base}/hangs", event_types=["task.failed"])
        await world.webhook(event_types=["task.created"])
        trials = [asyncio.create_task(tried(world, hangs)) for _ in range(40)]
        task_id = await world.created()
        await world.subscriber.until(lambda _: world.subscriber.of(task_id), seconds=5)
        results = await asyncio.gather(*trials)
        assert {result["error"] for result in results} == {"timed out after 1 s"}
