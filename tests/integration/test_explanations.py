"""Explanations of what really happens: each state is brought about, and the explanation says what it waits for."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.pipeline import HELD, begin, step, until_steps
from tests.fakes.rows import eventually, select
from tests.fakes.world import World, in_process

Json = dict[str, Any]
LOST = {"submit": "cut", "webhook": "lost", **HELD}
"""A script: the provider makes the task, and Ringback hears nothing of it."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose deliveries are tried again after an hour, and where a lost create is searched for after 5 s."""
    async with in_process(tmp_path, retry_schedule="0,3600") as world:
        yield world


async def explained(world: World, path: str) -> Json:
    answer = await world.api.get(f"/api/v1/{path}/explain")
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == answer.json()["data"]["object"] == "explanation"
    return dict(answer.json()["data"])


def codes(explanation: Json) -> set[str]:
    return {each["code"] for each in explanation["blocked_by"]}


def blocker(explanation: Json, code: str) -> Json:
    return next(each for each in explanation["blocked_by"] if each["code"] == code)


def seconds_until(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


async def test_a_task_that_waits_for_the_provider_s_budget_says_so(tmp_path: Path) -> None:
    async with in_process(tmp_path, provider_rate="1/h", stop_seconds="2") as world:
        first = await world.created(HELD)
        tasks = [{"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}] * 3
        made = (await world.api.post("/api/v1/tasks", json={"tasks": tasks})).json()["data"]["data"]
        explanations = [await explained(world, f"tasks/{each['task_id']}") for each in made]
        for each in explanations:
            assert (each["status"], each["next"]["action"]) == ("queued", "submit")
            assert blocker(each, "provider_budget")["calls_per_second"] == pytest.approx(1 / 3600)
            assert each["may"] == ["cancel"]
        assert (await explained(world, f"tasks/{first}"))["next"]["action"] in ("poll", "await_answer")


async def test_a_pending_task_names_its_next_poll_and_when_it_times_out(world: World) -> None:
    task_id = await world.created(HELD)
    await eventually(world, "SELECT 1 FROM task WHERE status = 'processing'", lambda rows: rows)
    found = await explained(world, f"tasks/{task_id}")
    assert (found["task_id"], found["status"], found["next"]["action"]) == (task_id, "processing", "poll")
    assert 10 < seconds_until(found["next"]["at"]) <= 15
    assert 86_000 < seconds_until(found["facts"]["times_out_at"]) <= 86_400
    assert codes(found) == {"provider"}
    assert found["may"] == ["cancel", "refresh"]


async def test_an_unknown_submission_says_that_it_is_searched_for_and_never_sent_again(world: World) -> None:
    task_id = await world.created(LOST)
    await eventually(world, "SELECT 1 FROM task WHERE submission = 'unknown'", lambda rows: rows)
    found = await explained(world, f"tasks/{task_id}")
    assert (found["status"], found["next"]["action"]) == ("queued", "search")
    assert 0 < seconds_until(found["next"]["at"]) <= 5
    assert 500 < seconds_until(blocker(found, "submission_unknown")["not_given_up_before"]) <= 600
    assert found["may"] == ["refresh"]


async def test_a_failed_attempt_names_the_time_of_the_next_one(world: World) -> None:
    task_id = await world.created({"outcome": "failed"}, retry={"max_attempts": 2, "backoff_seconds": 600})
    await eventually(world, "SELECT 1 FROM task WHERE attempt = 2", lambda rows: rows)
    found = await explained(world, f"tasks/{task_id}")
    assert (found["status"], found["next"]["action"]) == ("queued", "retry")
    assert 400 < seconds_until(found["next"]["at"]) <= 720
    assert blocker(found, "retry_backoff")["until"] == found["next"]["at"]
    assert "attempt 1 of 2 failed" in found["reason"]


async def test_a_task_waits_for_the_one_that_its_input_names(world: World) -> None:
    first = await world.created(LOST)
    await eventually(world, "SELECT 1 FROM task WHERE submission = 'unknown'", lambda rows: rows)
    second = await world.created(input={"prompt": "more", "origin_task_id": first})
    await eventually(world, f"SELECT 1 FROM task WHERE uid = '{second}' AND poll_count > 3", lambda rows: rows)
    found = await explained(world, f"tasks/{second}")
    assert blocker(found, "referenced_task")["task_id"] == first


async def test_a_task_that_ended_says_why(world: World) -> None:
    task_id = await world.created({"outcome": "failed"})
    task = await world.ended(task_id)
    found = await explained(world, f"tasks/{task_id}")
    assert task["error"]["message"] in found["reason"]
    assert (found["next"]["action"], found["next"]["at"], found["blocked_by"]) == ("none", None, [])
    assert (found["may"], found["facts"]["corrections"]) == (["retry", "refresh"], ["completed"])


async def test_a_run_names_the_step_whose_turn_it_is_and_what_the_others_wait_for(world: World) -> None:
    steps = [{**step(*names, sandbox=HELD), "action": "flux:txt2img"} for names in (["a"], ["b"], ["c", "a", "b"])]
    run_id = await begin(world, *steps)
    run = await until_steps(world, run_id, a="processing", b="processing")
    found = await explained(world, f"runs/{run_id}")
    assert (found["run_id"], found["status"], found["next"]["action"]) == (run_id, "in_progress", "poll")
    assert 0 < seconds_until(found["next"]["at"]) <= 15
    assert blocker(found, "step_waits")["waits_for"] == ["a", "b"]
    assert {each["task_id"] for each in found["facts"]["steps"]} == {each["job_id"] for each in run["steps"]}
    assert found["may"] == ["cancel"]
    cancelled = await world.api.post(f"/api/v1/runs/{run_id}/cancel")
    assert cancelled.status_code == 200
    after = await explained(world, f"runs/{run_id}")
    assert (after["status"], after["may"]) == ("cancelled", ["retry"])


async def test_a_failed_delivery_names_its_next_attempt_and_a_disabled_webhook_holds_its_deliveries(
    world: World,
) -> None:
    world.subscriber.answer = lambda _number, _request: 500
    webhook = await world.webhook(event_types=["task.completed"])
    await world.ended(await world.created())
    (row,) = await eventually(world, "SELECT uid FROM delivery WHERE attempt = 1 AND NOT leased", lambda rows: rows)
    found = await explained(world, f"deliveries/{row['uid']}")
    assert (found["status"], found["next"]["action"]) == ("pending", "retry")
    assert 2800 < seconds_until(found["next"]["at"]) <= 4320
    assert {"retry_backoff", "endpoint_failing"} == codes(found)
    assert (found["facts"]["attempts_left"], found["facts"]["last_status_code"]) == (1, 500)
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": False})
    held = await explained(world, f"deliveries/{row['uid']}")
    assert (held["next"]["at"], codes(held), held["may"]) == (None, {"webhook_disabled"}, ["enable_webhook"])
    world.subscriber.answer = lambda _number, _request: 200
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": True})
    await eventually(world, "SELECT 1 FROM delivery WHERE status = 'delivered'", lambda rows: rows)
    done = await explained(world, f"deliveries/{row['uid']}")
    assert (done["next"]["action"], done["may"]) == ("none", ["retry"])
    assert "HTTP 200" in done["reason"]


async def test_an_ordered_webhook_s_delivery_names_the_one_before_it(world: World) -> None:
    world.subscriber.answer = lambda _number, _request: 500
    await world.webhook(event_types=["task.created", "task.completed"], ordered=True)
    await world.ended(await world.created())
    await eventually(world, "SELECT 1 FROM delivery WHERE attempt = 1 AND NOT leased", lambda rows: rows)
    first, second = (row["uid"] for row in select(world, "SELECT uid FROM delivery ORDER BY id"))
    found = await explained(world, f"deliveries/{second}")
    assert blocker(found, "earlier_delivery")["delivery_id"] == first
    assert found["next"]["at"] is None
