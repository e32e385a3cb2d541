"""What every provider does, each against its twin: one suite for all, on both databases."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.domain.keyring import KeyRing
from receiver.providers import CallbackScope, CancelScope
from receiver.providers.registry import APIS, build_providers, known_apis
from receiver.serving.master_keys import master_keys
from tests.fakes.declared import EXAMPLES, cases_of
from tests.fakes.world import FAST_POLLING, WEBHOOK_SECRET, World, in_process

MODELS = {"fal": "fal-ai/flux/dev", "pi": "campaigns.generate", "replicate": "stability-ai/sdxl"}
REGISTRATIONS = {"pi": "/pi/api/v1/webhooks"}
"""Where an account registers the one address for its webhooks, by the provider that has such."""
DECLARED = ("kling", "luma", "minimax", "everything")
"""Of the declared ones those that differ most: a JWT and a look-up by our reference; poll-only; codes in a 200, a
second call and a challenge; and one of the tests with a list and public keys. The suite has no time for all."""
OTHERS = [*sorted(APIS), *DECLARED]
API_BY_NAME = known_apis(EXAMPLES)
CAN = {name: api.capabilities for name, api in API_BY_NAME.items()}
CALLED_BACK = [name for name in OTHERS if CAN[name].callback == CallbackScope.TASK]
TOLD_OF_NEWS = [name for name in OTHERS if CAN[name].callback == CallbackScope.ACCOUNT]
SIGNED = [*(name for name in CALLED_BACK if CAN[name].proofs), "openrouter"]
WITH_KEYS = [name for name in OTHERS if API_BY_NAME[name].signing_keys() is not None]
TOLD = [name for name in OTHERS if CAN[name].callback == CallbackScope.TASK or CAN[name].lists or CAN[name].finds]
"""Where something can tell of a create whose answer was lost."""
HALF = ("minimax",)
"""Those whose webhooks do not have the result, so that the task is looked at."""
NEVER = {"outcome": "never"}
SLOW = {"pending_seconds": 60}

REST = ("ark", "assemblyai", "kie", "minimaxh3", "openrouter", "runway", "sunoapi")
"""The other declared ones: that each form is sent and read is shown by a task or two."""
every = pytest.mark.parametrize("provider", OTHERS)
called_back = pytest.mark.parametrize("provider", CALLED_BACK)
signed = pytest.mark.parametrize("provider", SIGNED)


@pytest.fixture
async def world(tmp_path: Path, provider: str) -> AsyncIterator[World]:
    """A world with an account at the provider. One that is only polled is polled often."""
    polling = {} if CAN[provider].callback == CallbackScope.TASK else FAST_POLLING
    async with world_of(tmp_path, provider, **polling) as world:
        yield world


def world_of(folder: Path, provider: str, **settings: Any) -> AbstractAsyncContextManager[World]:
    return in_process(folder, declared=() if provider in APIS else (provider,), **settings)


async def register(world: World, provider: str) -> None:
    if (path := REGISTRATIONS.get(provider)) is not None:
        body = {"endpoint_url": f"{world.base}/hooks/{provider}", "secret": WEBHOOK_SECRET}
        answer = await world.provider.post(path, json=body, headers={"authorization": "Bearer any"})
        assert answer.status_code == 200, answer.text


async def create(world: World, provider: str, sandbox: dict[str, Any] | None = None, **fields: Any) -> httpx.Response:
    await register(world, provider)
    body = {"provider": provider, "model": MODELS.get(provider, ""), "task_type": "any", **fields}
    if provider not in APIS:
        sample = cases_of(provider).sample
        body |= {"model": sample.model, "task_type": sample.task_type, "input": dict(sample.input)}
    return await world.create({} if sandbox is None else sandbox, **body)


async def created(world: World, provider: str, sandbox: dict[str, Any] | None = None, **fields: Any) -> str:
    answer = await create(world, provider, sandbox, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


async def at_provider(world: World) -> list[dict[str, Any]]:
    return list((await world.provider.get("/sandbox/tasks")).json()["tasks"])


async def sources(world: World, task: str) -> list[str | None]:
    return [event["source"] for event in await world.events(task)]


@pytest.mark.parametrize("provider", [*CALLED_BACK, *TOLD_OF_NEWS])
async def test_a_task_is_created_and_its_webhook_completes_it(world: World, provider: str) -> None:
    task = await world.ended(await created(world, provider))
    assert (task["status"], task["provider"], task["error"]) == ("completed", provider, None)
    assert task["output"]["output_files"][0]["url"].startswith("http")
    (there,) = await at_provider(world)
    assert there["task_id"] == task["provider_task_id"]
    if provider in TOLD_OF_NEWS:  # its webhook says that there is news
        assert there["polls"] == 1
        assert (await world.provider_stats())["notices"]["acknowledged"] == 1
    else:
        assert (there["polls"] == 0) == (provider not in HALF)
        assert "webhook" in await sources(world, task["task_id"])


@pytest.mark.parametrize("provider", REST)
async def test_a_task_of_the_other_declared_ones_completes_and_another_fails(tmp_path: Path, provider: str) -> None:
    async with world_of(tmp_path, provider, **FAST_POLLING) as world:
        good, bad = await created(world, provider), await created(world, provider, {"outcome": "failed"})
        task, failed = await world.ended(good), await world.ended(bad)
        assert (task["status"], task["error"]) == ("completed", None)
        assert task["output"]["output_files"][0]["url"].startswith("http")
        assert (failed["status"], failed["error"]["message"]) == ("failed", "task failed")


@pytest.mark.parametrize("provider", ["ark", "runway"])
async def test_a_cancel_erases_no_task_that_has_ended(tmp_path: Path, provider: str) -> None:
    async with world_of(tmp_path, provider, poll_first_seconds="600") as world:
        task = await created(world, provider, {**NEVER, "webhook": "lost"})
        (there,) = await at_provider(world)
        await world.provider.post(f"/sandbox/tasks/{there['task_id']}/advance", json={"status": "completed"})
        answer = await world.api.post(f"/api/v1/tasks/{task}/cancel")
        assert answer.status_code == 409, answer.text
        assert [each["task_id"] for each in await at_provider(world)] == [there["task_id"]]


@called_back
async def test_the_token_of_the_webhook_s_path_is_never_stored(world: World, provider: str) -> None:
    task = await world.ended(await created(world, provider))
    (there,) = await at_provider(world)
    secret = KeyRing(master_keys(world.settings)).hook_secret(task["task_id"])
    assert there["endpoint"] == f"{world.base}/hooks/{provider}/{task['task_id']}/{secret}"
    assert secret not in str(task) + str(await world.events(task["task_id"]))


@every
async def test_a_failure_has_the_provider_s_words(world: World, provider: str) -> None:
    task = await world.ended(await created(world, provider, {"outcome": "failed"}))
    assert task["status"] == "failed"
    assert "task failed" in task["error"]["message"]


@pytest.mark.parametrize("webhook", ["lost", "not_json"])
@every
async def test_a_poll_finds_what_no_webhook_told(tmp_path: Path, provider: str, webhook: str) -> None:
    async with world_of(tmp_path, provider, **FAST_POLLING) as world:
        task = await world.ended(await created(world, provider, {"webhook": webhook}))
        assert task["status"] == "completed"
        assert (await sources(world, task["task_id"]))[-1] == "poll"


@signed
async def test_a_forged_webhook_is_refused_and_the_task_looked_at_now(tmp_path: Path, provider: str) -> None:
    async with world_of(tmp_path, provider, poll_first_seconds="600") as world:
        task = await world.ended(await created(world, provider, {"webhook": "wrong_secret"}))
        assert task["status"] == "completed"
        assert (await sources(world, task["task_id"]))[-1] == "poll"
        stats = await world.provider_stats()
        assert stats["notices"]["acknowledged"] == 0


@pytest.mark.parametrize("provider", [*sorted(APIS), "everything"])
async def test_a_webhook_with_a_wrong_token_is_refused_unread(world: World, provider: str) -> None:
    task = await created(world, provider, NEVER)
    answer = await world.provider.post(f"{world.base}/hooks/{provider}/{task}/{'x' * 43}", json={})
    assert answer.status_code == 401


@pytest.mark.parametrize("provider", WITH_KEYS)
async def test_keys_that_were_rotated_are_fetched_again(world: World, provider: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("receiver.providers.adapter._KEYS_AGAIN_SECONDS", 0.0)
    first = await world.ended(await created(world, provider))
    await world.provider.post(f"/{provider}/rotate-keys")
    second = await world.ended(await created(world, provider))
    assert [first["status"], second["status"]] == ["completed", "completed"]
    assert "webhook" in await sources(world, second["task_id"])


@called_back
async def test_webhooks_twice_and_out_of_order_change_nothing_more(world: World, provider: str) -> None:
    for webhook in ("twice", "reordered"):
        task = await world.ended(await created(world, provider, {"webhook": webhook}))
        ends = [event["type"] for event in await world.events(task["task_id"]) if event["type"] == "task.completed"]
        assert len(ends) == 1


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("provider", [name for name in OTHERS if name not in TOLD])
async def test_a_lost_create_that_nothing_tells_of_fails_as_one_that_may_be_made(tmp_path: Path, provider: str) -> None:
    async with world_of(tmp_path, provider, submission_unknown_seconds="1") as world:
        task = await world.ended(await created(world, provider, {"submit": "cut"}))
        assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")
        assert len(await at_provider(world)) == 1


@called_back
async def test_a_webhook_before_the_answer_to_the_create_call_is_the_task_s(world: World, provider: str) -> None:
    task = await world.ended(await created(world, provider, {"webhook": "before_answer"}))
    assert task["status"] == "completed"
    assert len(await at_provider(world)) == 1


@pytest.mark.parametrize(("submit", "status"), [("refuse", 422), ("refuse_in_200", 402)])
@every
async def test_a_refusal_fails_the_task_at_once(world: World, provider: str, submit: str, status: int) -> None:
    answer = await create(world, provider, {"submit": submit})
    assert answer.status_code == status
    (task,) = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
    assert task["status"] == "failed"
    assert await at_provider(world) == []


@every
async def test_a_refused_key_is_told_as_ringback_s_own(world: World, provider: str) -> None:
    answer = await create(world, provider, {"submit": "unauthorized"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
    (task,) = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
    assert (task["status"], task["error"]["code"]) == ("failed", "provider_unauthorized")


@every
async def test_without_a_key_the_task_fails_at_once(tmp_path: Path, provider: str) -> None:
    settings = {f"provider_{provider}_{API_BY_NAME[provider].credential_names[0]}": ""}
    async with world_of(tmp_path, provider, **settings) as world:
        answer = await create(world, provider)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
        assert await at_provider(world) == []


@pytest.mark.parametrize("submit", ["rate_limited", "unavailable"])
@every
async def test_what_the_provider_did_not_make_is_sent_again(world: World, provider: str, submit: str) -> None:
    task = await world.ended(await created(world, provider, {"submit": submit, "retry_after": 0}))
    assert task["status"] == "completed"
    assert len(await at_provider(world)) == 1


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("submit", ["cut", "bad_gateway"])
@pytest.mark.parametrize("provider", TOLD)
async def test_a_create_whose_answer_was_lost_is_not_made_twice(world: World, provider: str, submit: str) -> None:
    task = await world.ended(await created(world, provider, {"submit": submit}))
    assert task["status"] == "completed"
    assert [each["task_id"] for each in await at_provider(world)] == [task["provider_task_id"]]


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("provider", [name for name in OTHERS if CAN[name].lists or CAN[name].finds])
async def test_a_lost_create_is_found_by_our_reference_or_in_the_list(tmp_path: Path, provider: str) -> None:
    async with world_of(tmp_path, provider, **FAST_POLLING) as world:
        task = await world.ended(await created(world, provider, {"submit": "cut", "webhook": "lost"}))
        assert task["status"] == "completed"
        assert [each["task_id"] for each in await at_provider(world)] == [task["provider_task_id"]]


@every
async def test_a_task_in_the_queue_is_cancelled(world: World, provider: str) -> None:
    task = await created(world, provider, SLOW)
    answer = await world.api.post(f"/api/v1/tasks/{task}/cancel")
    can_cancel = CAN[provider].cancels != CancelScope.NONE
    assert answer.status_code == (200 if can_cancel else 409), answer.text
    assert ((await world.task(task))["status"] == "cancelled") == can_cancel


@pytest.mark.parametrize("provider", ["fal", "kling"])
async def test_an_unknown_provider_is_named_with_the_nearest(world: World, provider: str) -> None:
    answer = await world.create({}, provider=f"{provider}x")
    assert answer.status_code == 400
    assert re.search(rf"no provider is named '{provider}x'; use {provider}", answer.text)


@every
async def test_the_account_is_checked_by_a_call_that_costs_nothing(world: World, provider: str) -> None:
    checked = build_providers(world.settings, None)[provider]
    try:
        found = await checked.check_account()
        assert (found.is_reached, found.fault) == (True, "")
    finally:
        await checked.aclose()
    assert await at_provider(world) == []
