"""The demo's rules: what it asks for, how its subscriber keeps book, and what it finds fault with."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from receiver.cli.demo.checks import Facts, judge
from receiver.cli.demo.subscriber_log import SubscriberLog
from receiver.cli.demo.workload import FAMILIES, make_workload
from receiver.sandbox import SandboxOptions
from receiver.sandbox.script import read_script

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = time.time()


def log(refuse_share: float = 0.0) -> SubscriberLog:
    return SubscriberLog(SECRET, "callback-secret", refuse_share=refuse_share, seed=1)


def signed(message_id: str, *, secret: str = SECRET, at: float = NOW) -> tuple[dict[str, str], bytes]:
    """Return the headers and body of a delivery, signed by the public package."""
    moment = datetime.fromtimestamp(at, UTC)
    body = json.dumps({"type": "task.completed", "timestamp": moment.isoformat(), "data": {"task_id": "t1"}})
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": "v1,old " + Webhook(secret).sign(message_id, moment, body),
    }
    return headers, body.encode()


def test_the_same_seed_gives_the_same_tasks() -> None:
    assert make_workload(60, seed=7, callback_url="u", callback_secret="s") == make_workload(
        60, seed=7, callback_url="u", callback_secret="s"
    )


def test_every_family_is_there_and_the_sandbox_understands_every_script() -> None:
    tasks = make_workload(200, seed=7, callback_url="http://x/callback", callback_secret="s").tasks
    assert {task.body["model"] for task in tasks} == {model for model, _, _ in FAMILIES}
    scripts = [read_script(task.body["input"]["sandbox"], SandboxOptions()) for task in tasks]
    assert {script.outcome for script in scripts} == {"completed", "failed", "cancelled"}
    assert [task.body["metadata"] for task in tasks] == [{"demo": str(number)} for number in range(200)]
    assert any(task.own_callback and "config" in task.body for task in tasks)


def test_some_creates_of_the_burst_are_answered_too_late() -> None:
    wanted = make_workload(200, seed=7, callback_url="u", callback_secret="s")
    slow = [task.number for task in wanted.tasks if task.body["input"]["sandbox"].get("submit") == "hang"]
    assert slow
    assert set(slow) <= set(wanted.burst)


def test_the_subscriber_takes_a_signed_notice_once() -> None:
    book = log()
    headers, body = signed("evt1")
    assert book.hear(headers, body, NOW + 0.5) == 200
    assert book.hear(headers, body, NOW + 9) == 200
    assert (book.counts["accepted"], book.counts["repeats"]) == (1, 1)
    assert book.told["evt1"].seconds == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    "spoiled",
    [
        signed("evt1", secret="whsec_" + "A" * 32),
        signed("evt1", at=NOW - 3600),
        ({**signed("evt1")[0], "webhook-id": "evt2"}, signed("evt1")[1]),
        (signed("evt1")[0], signed("evt1")[1] + b" "),
        ({}, signed("evt1")[1]),
        ({**signed("evt1")[0], "webhook-timestamp": "soon"}, signed("evt1")[1]),
    ],
    ids=["other secret", "old", "other id", "other body", "no headers", "no time"],
)
def test_the_subscriber_refuses_what_is_not_signed_well(spoiled: tuple[dict[str, str], bytes]) -> None:
    book = log()
    assert book.hear(*spoiled, NOW) == 401
    assert book.counts["forged"] == 1
    assert not book.told


def test_a_notice_is_refused_twice_at_most() -> None:
    book = log(refuse_share=1.0)
    headers, body = signed("evt1")
    answers = [book.hear(headers, body, NOW) for _ in range(4)]
    assert answers[0] == 500
    assert answers[-1] == 200
    assert answers.count(500) <= 2
    assert book.counts["accepted"] == 1


def test_a_callbacks_end_is_not_overwritten_by_what_comes_late() -> None:
    book = log()
    for status in ("processing", "completed", "processing"):
        body = json.dumps({"timestamp": 1, "data": {"task_id": "t1", "status": status}}).encode()
        assert book.hear_callback({"x-webhook-secret": "callback-secret"}, body) == 200
        assert book.hear_callback({"x-webhook-secret": "wrong"}, body) == 401
    assert book.callbacks == {"t1": "completed"}
    assert book.counts["callback_ends"] == 1


def good_facts() -> Facts:
    """Return the facts of a demo with two tasks in which nothing was lost."""
    ids = {0: "t0", 1: "t1"}
    ends = {"t0": ("completed", "webhook", 0.01), "t1": ("failed", "poll", 0.5)}
    return Facts(
        wanted=2,
        ids=ids,
        own_callbacks=frozenset({0}),
        tasks=[
            {"task_id": ids[number], "status": ends[ids[number]][0], "metadata": {"demo": str(number)}, "error": None}
            for number in ids
        ],
        events={
            task_id: [
                {"id": f"e-{task_id}", "type": f"task.{status}", "task_id": task_id, "data": {"source": source}},
                {"id": f"c-{task_id}", "type": "task.created", "task_id": task_id, "data": {}},
            ]
            for task_id, (status, source, _) in ends.items()
        },
        book={
            "counts": {"forged": 0},
            "told": {f"e-{task_id}": {"accepted": True, "seconds": end[2]} for task_id, end in ends.items()},
            "callbacks": {"t0": "completed"},
        },
        sandbox={"by_endpoint": {"http://x/hooks/piapi/t0": 1, "http://x/hooks/piapi/t1?attempt=2": 1}},
    )


def test_nothing_lost_is_no_fault() -> None:
    checks = judge(good_facts())
    assert checks.faults == []
    assert checks.ended_by == {"webhook": 1, "poll": 1}
    assert checks.by_status == {"completed": 1, "failed": 1}
    assert (checks.p50, checks.p99) == (0.01, 0.5)


def _task(facts: Facts, number: int, **change: Any) -> Facts:
    tasks = [dict(task) for task in facts.tasks]
    tasks[number] |= change
    return replace(facts, tasks=tasks)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(good_facts(), ids={0: "t0"}), "never answered"),
        (replace(good_facts(), ids={0: "t0", 1: "t9"}), "answered with 200 and is not there"),
        (_task(good_facts(), 0, status="processing"), "has not ended"),
        (_task(good_facts(), 0, metadata={"demo": "1"}), "is there 2 times"),
        (replace(good_facts(), tasks=good_facts().tasks[:1]), "1 tasks are there"),
        (_task(good_facts(), 0, status="failed"), "its ending events are"),
        (replace(good_facts(), events={}), "its ending events are"),
        (replace(good_facts(), book={**good_facts().book, "told": {}}), "was not told of task.failed"),
        (replace(good_facts(), book={**good_facts().book, "counts": {"forged": 3}}), "3 notices had no good signature"),
        (replace(good_facts(), book={**good_facts().book, "callbacks": {}}), "was told that it is None"),
        (replace(good_facts(), sandbox={"by_endpoint": {"http://x/hooks/piapi/t0": 2}}), "more than once"),
        (_task(good_facts(), 1, error={"code": "submission_unknown"}), "was given up, and the provider has it"),
    ],
)
def test_whatever_was_lost_or_doubled_is_named(facts: Facts, said: str) -> None:
    assert any(said in fault for fault in judge(facts).faults)


def test_an_unaccepted_notice_does_not_count_as_told() -> None:
    facts = good_facts()
    told = {name: {**each, "accepted": False} for name, each in facts.book["told"].items()}
    assert judge(replace(facts, book={**facts.book, "told": told})).untold == 2
