"""What every provider does, each against its twin: one suite for all, on both databases.

What a test expects follows from the provider's capabilities. A provider that makes several kinds of tasks is in `KINDS`
once for each; the kinds besides the first are only tried where the kind makes a difference.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.domain.keyring import KeyRing
from receiver.providers import CallbackScope, CancelScope
from receiver.providers.registry import build_providers
from receiver.serving.master_keys import master_keys
from tests.fakes.world import FAST_POLLING, World
from tests.providers.kinds import (
    ALL_APIS,
    FIRST_KINDS,
    KINDS,
    ONLY_WEBHOOKS,
    REST,
    Kind,
    at_provider,
    create,
    created,
    declared,
    each,
)

NEVER = {"outcome": "never"}
SLOW = {"pending_seconds": 60}
WITH_KEYS = [kind for kind in FIRST_KINDS if kind.api.signing_keys() is not None]
PER_TASK = [kind for kind in FIRST_KINDS if kind.can.callback == CallbackScope.TASK]
PER_ACCOUNT = [kind for kind in KINDS if kind.can.callback == CallbackScope.ACCOUNT]
SIGNED = [*(kind for kind in PER_TASK if kind.can.proofs), declared("openrouter")]
CALLED = [kind for kind in KINDS if kind.can.callback != CallbackScope.NONE]
HALF = ("minimax",)
"""Those of whose webhooks some do not have the result, so that the task is looked at."""

each_kind, each_provider = each(*KINDS), each(*FIRST_KINDS)
where_per_task, where_per_account = each(*PER_TASK), each(*PER_ACCOUNT)


@pytest.fixture
async def world(tmp_path: Path, kind: Kind) -> AsyncIterator[World]:
    """A world with an account at the provider. One that is only polled is polled often."""
    polling = FAST_POLLING if kind.can.callback == CallbackScope.NONE else {}
    async with kind.world(tmp_path, **polling) as world:
        yield world


def test_each_provider_is_in_the_suite() -> None:
    assert {kind.provider for kind in FIRST_KINDS + REST} == ALL_APIS.keys()


async def until_given_up(world: World) -> None:
    """Wait until the provider sends a webhook no more that it could not deliver."""
    async with asyncio.timeout(10):
        while not (await world.provider_stats())["notices"]["given_up"]:  # noqa: ASYNC110 - the twin's count
            await asyncio.sleep(0.02)


async def sources(world: World, task: str) -> list[str | None]:
    return [event["source"] for event in await world.events(task)]


@each(*CALLED)
async def test_a_task_is_created_and_its_webhook_completes_it(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **ONLY_WEBHOOKS) as world:
        task = await world.ended(await created(world, kind))
        assert (task["status"], task["provider"], task["error"]) == ("completed", kind.provider, None)
        assert "http" in str(task["output"])
        (there,) = await at_provider(world)
        assert task["provider_task_id"].endswith(there["task_id"])
        if not kind.can.is_thin:
            assert (there["polls"] == 0) == (kind.provider not in HALF)
            assert "webhook" in await sources(world, task["task_id"])


@each(*REST)
async def test_a_task_of_the_other_declared_ones_completes_and_another_fails(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **FAST_POLLING) as world:
        good, bad = await created(world, kind), await created(world, kind, {"outcome": "failed"})
        task, failed = await world.ended(good), await world.ended(bad)
        assert (task["status"], task["error"]) == ("completed", None)
        assert task["output"]["output_files"][0]["url"].startswith("http")
        assert (failed["status"], failed["error"]["message"]) == ("failed", "task failed")


@each(declared("ark"), declared("runway"))
async def test_a_cancel_erases_no_task_that_has_ended(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **ONLY_WEBHOOKS) as world:
        task = await created(world, kind, {**NEVER, "webhook": "lost"})
        (there,) = await at_provider(world)
        await world.provider.post(f"/sandbox/tasks/{there['task_id']}/advance", json={"status": "completed"})
        answer = await world.api.post(f"/api/v1/tasks/{task}/cancel")
        assert answer.status_code == 409, answer.text
        assert [each["task_id"] for each in await at_provider(world)] == [there["task_id"]]


@where_per_task
async def test_the_token_of_the_webhook_s_path_is_never_stored(world: World, kind: Kind) -> None:
    task = await world.ended(await created(world, kind))
    (there,) = await at_provider(world)
    secret = KeyRing(master_keys(world.settings)).hook_secret(task["task_id"])
    assert there["endpoint"] == f"{world.base}/hooks/{kind.provider}/{task['task_id']}/{secret}"
    assert secret not in str(task) + str(await world.events(task["task_id"]))


@each_kind
async def test_a_failure_has_the_provider_s_words(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **FAST_POLLING) as world:
        task = await world.ended(await created(world, kind, {"outcome": "failed"}))
        assert task["status"] == "failed"
        assert "task failed" in task["error"]["message"]


@each_provider
async def test_a_poll_finds_what_no_webhook_told(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **FAST_POLLING) as world:
        faults = ["lost", "not_json", *(["wrong_secret"] if kind.can.proofs else [])]
        for uid in [await created(world, kind, {"webhook": fault}) for fault in faults]:
            assert (await world.ended(uid))["status"] == "completed"
            assert (await sources(world, uid))[-1] == "poll"


@each(*SIGNED)
async def test_a_forged_webhook_is_refused_and_the_task_looked_at_now(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **ONLY_WEBHOOKS) as world:
        task = await world.ended(await created(world, kind, {"webhook": "wrong_secret"}))
        assert task["status"] == "completed"
        assert (await sources(world, task["task_id"]))[-1] == "poll"
        stats = await world.provider_stats()
        assert stats["notices"]["acknowledged"] == 0


@where_per_account
async def test_a_forged_webhook_of_an_account_changes_nothing(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **ONLY_WEBHOOKS) as world:
        task = await created(world, kind, {"webhook": "wrong_secret"})
        await until_given_up(world)
        assert (await world.task(task))["status"] != "completed"
        assert [each["polls"] for each in await at_provider(world)] == [0]
        assert (await world.provider_stats())["notices"]["acknowledged"] == 0


@where_per_account
async def test_without_the_account_s_secret_webhooks_are_refused_and_tasks_polled(tmp_path: Path, kind: Kind) -> None:
    settings: dict[str, Any] = {f"provider_{kind.provider}_webhook_secret": "", **FAST_POLLING}
    async with kind.world(tmp_path, **settings) as world:
        task = await world.ended(await created(world, kind))
        assert task["status"] == "completed"
        assert (await world.provider_stats())["notices"]["acknowledged"] == 0


@where_per_task
async def test_a_webhook_with_a_wrong_token_is_refused_unread(world: World, kind: Kind) -> None:
    task = await created(world, kind, NEVER)
    answer = await world.provider.post(f"{world.base}/hooks/{kind.provider}/{task}/{'x' * 43}", json={})
    assert answer.status_code == 401


@each(*WITH_KEYS)
async def test_keys_that_were_rotated_are_fetched_again(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.providers.adapter._KEYS_AGAIN_SECONDS", 0.0)
    async with kind.world(tmp_path, **ONLY_WEBHOOKS) as world:
        first = await world.ended(await created(world, kind))
        await world.provider.post(f"/{kind.provider}/rotate-keys")
        second = await world.ended(await created(world, kind))
        assert [first["status"], second["status"]] == ["completed", "completed"]
        assert (await world.provider_stats())["notices"]["failed"] == 0


@each_provider
async def test_webhooks_twice_out_of_order_and_late_change_nothing_more(world: World, kind: Kind) -> None:
    for webhook in ("twice", "reordered", "late"):
        task = await world.ended(await created(world, kind, {"webhook": webhook, "late_seconds": 0.2}))
        ends = [event["type"] for event in await world.events(task["task_id"]) if event["type"] == "task.completed"]
        assert len(ends) == 1


@each(*CALLED)
async def test_a_webhook_before_the_answer_to_the_create_call_is_the_task_s(tmp_path: Path, kind: Kind) -> None:
    # A webhook of the account is a task's only if something at the provider says whose it is.
    async with kind.world(tmp_path, **(ONLY_WEBHOOKS if kind.is_told_of else FAST_POLLING)) as world:
        task = await world.ended(await created(world, kind, {"webhook": "before_answer"}))
        assert task["status"] == "completed"
        assert len(await at_provider(world)) == 1


@each_provider
async def test_a_task_that_is_not_shown_at_first_or_too_often_asked_for_is_asked_for_again(
    tmp_path: Path, kind: Kind
) -> None:
    async with kind.world(tmp_path, **FAST_POLLING) as world:
        faults = ({"poll": "not_found", "poll_failures": 2}, {"poll": "rate_limited", "retry_after": 0})
        for uid in [await created(world, kind, {"webhook": "lost", **fault}) for fault in faults]:
            assert (await world.ended(uid))["status"] == "completed"


@each_provider
async def test_a_refusal_fails_the_task_at_once(world: World, kind: Kind) -> None:
    refused = await create(world, kind, {"submit": "refuse"})
    unpaid = await create(world, kind, {"submit": "refuse_in_200"})
    assert refused.status_code in (400, 422)
    assert unpaid.status_code == 402
    tasks = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
    assert [task["status"] for task in tasks] == ["failed", "failed"]
    assert await at_provider(world) == []


@pytest.mark.usefixtures("quick_search")
@each_provider
async def test_a_create_that_the_provider_answers_with_an_error_fails_with_its_words(world: World, kind: Kind) -> None:
    answer = await create(world, kind, {"submit": "error"})
    (task,) = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
    ended = await world.ended(task["task_id"])
    assert answer.status_code in (200, 500)
    assert (ended["status"], ended["error"]["message"]) == ("failed", "internal error")
    assert await at_provider(world) == []


@each_provider
async def test_a_refused_key_is_told_as_ringback_s_own(world: World, kind: Kind) -> None:
    answer = await create(world, kind, {"submit": "unauthorized"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
    (task,) = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
    assert (task["status"], task["error"]["code"]) == ("failed", "provider_unauthorized")


@each_provider
async def test_without_a_key_the_task_fails_at_once(tmp_path: Path, kind: Kind) -> None:
    settings: dict[str, Any] = {f"provider_{kind.provider}_{kind.api.credential_names[0]}": ""}
    async with kind.world(tmp_path, **settings) as world:
        answer = await create(world, kind)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
        assert await at_provider(world) == []


@each_provider
async def test_what_the_provider_did_not_make_is_sent_again(world: World, kind: Kind) -> None:
    faults = ("rate_limited", "unavailable")
    for uid in [await created(world, kind, {"submit": fault, "retry_after": 0}) for fault in faults]:
        assert (await world.ended(uid))["status"] == "completed"
    assert len(await at_provider(world)) == 2


@pytest.mark.usefixtures("quick_search")
@each(*(kind for kind in KINDS if kind.is_told_of))
async def test_a_create_whose_answer_was_lost_is_not_made_twice(world: World, kind: Kind) -> None:
    lost = [await created(world, kind, {"submit": fault}) for fault in ("cut", "bad_gateway")]
    tasks = [await world.ended(uid) for uid in lost]
    assert [task["status"] for task in tasks] == ["completed", "completed"]
    names = {task["provider_task_id"][-36:] for task in tasks}
    assert names == {there["task_id"] for there in await at_provider(world)}
    assert len(await at_provider(world)) == 2


@pytest.mark.usefixtures("quick_search")
@each_kind
async def test_a_lost_create_without_a_webhook_is_found_or_fails_as_unknown(tmp_path: Path, kind: Kind) -> None:
    settings: dict[str, Any] = {**FAST_POLLING, "submission_unknown_seconds": "1"}
    async with kind.world(tmp_path, **settings) as world:
        for _ in range(4):  # so that it is not on the first page of a list
            await created(world, kind, NEVER | {"webhook": "lost"})
        lost = await created(world, kind, {"submit": "cut", "webhook": "lost"})
        for _ in range(4):
            await created(world, kind, NEVER | {"webhook": "lost"})
        task = await world.ended(lost)
        can_find = kind.can.finds and kind.api.find("reference", kind.model, kind.task_type) is not None
        if kind.can.lists or can_find:
            assert task["status"] == "completed"
        else:
            assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")
        assert len(await at_provider(world)) == 9


@each_kind
async def test_a_task_in_the_queue_is_cancelled(tmp_path: Path, kind: Kind) -> None:
    async with kind.world(tmp_path, **FAST_POLLING) as world:
        task = await created(world, kind, SLOW)
        answer = await world.api.post(f"/api/v1/tasks/{task}/cancel")
        if kind.can_cancel and kind.can.cancels != CancelScope.NONE:
            assert answer.status_code == 200, answer.text
            assert (await world.ended(task))["status"] == "cancelled"
        else:
            assert answer.status_code == 409
            assert (await world.task(task))["status"] == "pending"


@each(*FIRST_KINDS[:2])
async def test_an_unknown_provider_is_named_with_the_nearest(world: World, kind: Kind) -> None:
    provider = kind.provider
    answer = await world.create({}, provider=f"{provider}x")
    assert answer.status_code == 400
    assert re.search(rf"no provider is named '{provider}x'; use {provider}", answer.text)


@each_provider
async def test_the_account_is_checked_by_a_call_that_costs_nothing(world: World, kind: Kind) -> None:
    checked = build_providers(world.settings, None)[kind.provider]
    try:
        found = await checked.check_account()
        assert (found.is_reached, found.fault) == (True, "")
    finally:
        await checked.aclose()
    assert await at_provider(world) == []
