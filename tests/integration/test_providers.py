"""What every provider does, each against its twin: one suite for all, on both databases."""

import re
from typing import Any

import httpx
import pytest

from receiver.domain.keyring import KeyRing
from receiver.providers import CallbackScope, CancelScope
from receiver.providers.registry import APIS, PROVIDER_NAMES, build_providers
from receiver.serving.master_keys import master_keys
from tests.fakes.world import FAST_POLLING, WEBHOOK_SECRET, World, in_process

MODELS = {"fal": "fal-ai/flux/dev", "pi": "campaigns.generate", "replicate": "stability-ai/sdxl"}
REGISTRATIONS = {"pi": "/pi/api/v1/webhooks"}
"""Where an account registers the one address for its webhooks, by the provider that has such."""
OTHERS = [name for name in PROVIDER_NAMES if name != "piapi"]
NEVER = {"outcome": "never"}
SLOW = {"pending_seconds": 60}

pytestmark = pytest.mark.parametrize("provider", OTHERS)


def has_own_webhooks(provider: str) -> bool:
    """Return whether each task has its own address for webhooks, which is a proof of who it is."""
    return APIS[provider].capabilities.callback == CallbackScope.TASK


async def register(world: World, provider: str) -> None:
    if (path := REGISTRATIONS.get(provider)) is not None:
        body = {"endpoint_url": f"{world.base}/hooks/{provider}", "secret": WEBHOOK_SECRET}
        answer = await world.provider.post(path, json=body, headers={"authorization": "Bearer any"})
        assert answer.status_code == 200, answer.text


async def create(world: World, provider: str, sandbox: dict[str, Any] | None = None, **fields: Any) -> httpx.Response:
    await register(world, provider)
    body = {"provider": provider, "model": MODELS[provider], "task_type": "any", **fields}
    return await world.create({} if sandbox is None else sandbox, **body)


async def created(world: World, provider: str, sandbox: dict[str, Any] | None = None, **fields: Any) -> str:
    answer = await create(world, provider, sandbox, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


async def at_provider(world: World) -> list[dict[str, Any]]:
    return list((await world.provider.get("/sandbox/tasks")).json()["tasks"])


async def sources(world: World, task: str) -> list[str | None]:
    return [event["source"] for event in await world.events(task)]


async def test_a_task_is_created_and_its_webhook_completes_it(world: World, provider: str) -> None:
    task = await world.ended(await created(world, provider))
    assert (task["status"], task["provider"], task["error"]) == ("completed", provider, None)
    assert task["output"]["output_files"][0]["url"].startswith("http")
    (there,) = await at_provider(world)
    assert there["task_id"] == task["provider_task_id"]
    if has_own_webhooks(provider):
        assert there["polls"] == 0
        assert "webhook" in await sources(world, task["task_id"])
    else:  # its webhook says that there is news
        assert there["polls"] == 1
        assert (await world.provider_stats())["notices"]["acknowledged"] == 1


async def test_the_token_of_the_webhook_s_path_is_never_stored(world: World, provider: str) -> None:
    if not has_own_webhooks(provider):
        pytest.skip("its webhooks have no token")
    task = await world.ended(await created(world, provider))
    (there,) = await at_provider(world)
    secret = KeyRing(master_keys(world.settings)).hook_secret(task["task_id"])
    assert there["endpoint"] == f"{world.base}/hooks/{provider}/{task['task_id']}/{secret}"
    assert secret not in str(task) + str(await world.events(task["task_id"]))


async def test_a_failure_has_the_provider_s_words(world: World, provider: str) -> None:
    task = await world.ended(await created(world, provider, {"outcome": "failed"}))
    assert task["status"] == "failed"
    assert "task failed" in task["error"]["message"]


@pytest.mark.parametrize("webhook", ["lost", "wrong_secret", "not_json"])
async def test_a_poll_finds_what_no_webhook_told(tmp_path: Any, provider: str, webhook: str) -> None:
    async with in_process(tmp_path, **FAST_POLLING) as world:
        task = await world.ended(await created(world, provider, {"webhook": webhook}))
        assert task["status"] == "completed"
        assert (await sources(world, task["task_id"]))[-1] == "poll"


async def test_a_forged_webhook_is_refused_and_the_task_looked_at_now(tmp_path: Any, provider: str) -> None:
    if not has_own_webhooks(provider):
        pytest.skip("a webhook that nobody has signed names no task")
    async with in_process(tmp_path, poll_first_seconds="600") as world:
        task = await world.ended(await created(world, provider, {"webhook": "wrong_secret"}))
        assert task["status"] == "completed"
        assert (await sources(world, task["task_id"]))[-1] == "poll"
        stats = await world.provider_stats()
        assert stats["notices"]["acknowledged"] == 0


async def test_a_webhook_with_a_wrong_token_is_refused_unread(world: World, provider: str) -> None:
    task = await created(world, provider, NEVER)
    answer = await world.provider.post(f"{world.base}/hooks/{provider}/{task}/{'x' * 43}", json={})
    assert answer.status_code == 401


async def test_keys_that_were_rotated_are_fetched_again(world: World, provider: str, monkeypatch: Any) -> None:
    if APIS[provider].signing_keys() is None:
        pytest.skip("a person chooses its secret")
    monkeypatch.setattr("receiver.providers.adapter._KEYS_AGAIN_SECONDS", 0.0)
    first = await world.ended(await created(world, provider))
    await world.provider.post(f"/{provider}/rotate-keys")
    second = await world.ended(await created(world, provider))
    assert [first["status"], second["status"]] == ["completed", "completed"]
    assert "webhook" in await sources(world, second["task_id"])


async def test_webhooks_twice_and_out_of_order_change_nothing_more(world: World, provider: str) -> None:
    for webhook in ("twice", "reordered"):
        task = await world.ended(await created(world, provider, {"webhook": webhook}))
        ends = [event["type"] for event in await world.events(task["task_id"]) if event["type"] == "task.completed"]
        assert len(ends) == 1


async def test_a_webhook_before_the_answer_to_the_create_call_is_the_task_s(tmp_path: Any, provider: str) -> None:
    async with in_process(tmp_path, **FAST_POLLING) as world:
        task = await world.ended(await created(world, provider, {"webhook": "before_answer"}))
        assert task["status"] == "completed"
        assert len(await at_provider(world)) == 1
        assert has_own_webhooks(provider) == ("webhook" in await sources(world, task["task_id"]))


@pytest.mark.parametrize(("submit", "status"), [("refuse", 422), ("refuse_in_200", 402)])
async def test_a_refusal_fails_the_task_at_once(world: World, provider: str, submit: str, status: int) -> None:
    answer = await create(world, provider, {"submit": submit})
    assert answer.status_code == status
    (task,) = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
    assert task["status"] == "failed"
    assert await at_provider(world) == []


async def test_a_refused_key_is_told_as_ringback_s_own(world: World, provider: str) -> None:
    answer = await create(world, provider, {"submit": "unauthorized"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
    (task,) = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
    assert (task["status"], task["error"]["code"]) == ("failed", "provider_unauthorized")


async def test_without_a_key_the_task_fails_at_once(tmp_path: Any, provider: str) -> None:
    settings: dict[str, Any] = {f"provider_{provider}_api_key": ""}
    async with in_process(tmp_path, **settings) as world:
        answer = await create(world, provider)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
        assert await at_provider(world) == []


@pytest.mark.parametrize("submit", ["rate_limited", "unavailable"])
async def test_what_the_provider_did_not_make_is_sent_again(world: World, provider: str, submit: str) -> None:
    task = await world.ended(await created(world, provider, {"submit": submit, "retry_after": 0}))
    assert task["status"] == "completed"
    assert len(await at_provider(world)) == 1


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("submit", ["cut", "bad_gateway"])
async def test_a_create_whose_answer_was_lost_is_not_made_twice(tmp_path: Any, provider: str, submit: str) -> None:
    can = APIS[provider].capabilities
    is_provable = has_own_webhooks(provider) or can.lists or can.finds
    async with in_process(tmp_path, submission_unknown_seconds="600" if is_provable else "1") as world:
        task = await world.ended(await created(world, provider, {"submit": submit}))
        (there,) = await at_provider(world)
        if is_provable:
            assert (task["status"], task["provider_task_id"]) == ("completed", there["task_id"])
        else:
            assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")


async def test_a_task_in_the_queue_is_cancelled_where_that_can_be_asked(world: World, provider: str) -> None:
    task = await created(world, provider, SLOW)
    answer = await world.api.post(f"/api/v1/tasks/{task}/cancel")
    if APIS[provider].capabilities.cancels == CancelScope.NONE:
        assert (answer.status_code, (await world.task(task))["status"]) == (409, "pending")
    else:
        assert answer.status_code == 200, answer.text
        assert (await world.task(task))["status"] == "cancelled"


async def test_an_unknown_provider_is_named_with_the_nearest(world: World, provider: str) -> None:
    answer = await world.create({}, provider=f"{provider}x")
    assert answer.status_code == 400
    assert re.search(rf"no provider is named '{provider}x'; use {provider}", answer.text)


async def test_the_account_is_checked_by_a_call_that_costs_nothing(world: World, provider: str) -> None:
    checked = build_providers(world.settings, None)[provider]
    try:
        found = await checked.check_account()
        assert (found.is_reached, found.fault) == (True, "")
    finally:
        await checked.aclose()
    assert await at_provider(world) == []
