"""The demo's workload, its subscriber, and the faults that its checks find."""

import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from standardwebhooks import Webhook

from receiver.cli.demo.checks import Observations, check
from receiver.cli.demo.subscriber_log import ReceivedEvent, SubscriberLog
from receiver.cli.demo.workload import FAMILIES, Workload, make_workload
from receiver.sandbox import SandboxOptions
from receiver.sandbox.script import read_script

CALLBACK = {"endpoint": "http://127.0.0.1/callback", "secret": "s"}
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = time.time()


def subscriber_log(refused_share: float = 0.0) -> SubscriberLog:
    return SubscriberLog(SECRET, "callback-secret", refused_share=refused_share, seed=1)


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
    assert make_workload(60, seed=7, callback=CALLBACK) == make_workload(60, seed=7, callback=CALLBACK)


def test_the_workload_has_every_family_and_the_sandbox_accepts_every_script() -> None:
    workload = make_workload(200, seed=7, callback=CALLBACK)
    assert {body["model"] for body in workload.bodies} == {model for model, _, _ in FAMILIES}
    scripts = [read_script(body["input"]["sandbox"], SandboxOptions()) for body in workload.bodies]
    assert {script.outcome for script in scripts} == {"completed", "failed", "cancelled"}
    assert [body["metadata"] for body in workload.bodies] == [{"demo": str(number)} for number in range(200)]
    assert workload.callbacks == list(range(0, 200, 8))


def test_some_creates_of_the_burst_are_answered_too_late() -> None:
    workload = make_workload(200, seed=7, callback=CALLBACK)
    scripts = [body["input"]["sandbox"] for body in workload.bodies]
    slow = {number for number, script in enumerate(scripts) if script.get("submit") == "hang"}
    assert slow
    assert slow <= set(workload.burst)


def test_the_subscriber_accepts_a_signed_event_once() -> None:
    log = subscriber_log()
    headers, body = signed("evt1")
    assert log.receive(headers, body, NOW + 0.5) == 200
    assert log.receive(headers, body, NOW + 9) == 200
    assert (log.counts["accepted"], log.counts["repeats"]) == (1, 1)
    assert log.events["evt1"].seconds == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    "forged",
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
def test_the_subscriber_refuses_an_invalid_signature(forged: tuple[dict[str, str], bytes]) -> None:
    log = subscriber_log()
    assert log.receive(*forged, NOW) == 401
    assert log.counts["forged"] == 1
    assert not log.events


def test_an_event_is_refused_at_most_twice() -> None:
    log = subscriber_log(refused_share=1.0)
    headers, body = signed("evt1")
    answers = [log.receive(headers, body, NOW) for _ in range(4)]
    assert answers[0] == 500
    assert answers[-1] == 200
    assert answers.count(500) <= 2
    assert log.counts["accepted"] == 1


def test_a_late_callback_does_not_overwrite_a_final_status() -> None:
    log = subscriber_log()
    for status in ("processing", "completed", "processing"):
        body = json.dumps({"timestamp": 1, "data": {"task_id": "t1", "status": status}}).encode()
        assert log.receive_callback({"x-webhook-secret": "callback-secret"}, body) == 200
        assert log.receive_callback({"x-webhook-secret": "wrong"}, body) == 401
    assert log.callbacks == {"t1": "completed"}
    assert log.counts["callback_ends"] == 1


def observations(**changes: Any) -> Observations:
    """Return what is seen of a demo with two tasks in which nothing was lost."""
    subscriber = subscriber_log()
    subscriber.events = {
        "e-t0": ReceivedEvent("t0", 0.01, accepted=True),
        "e-t1": ReceivedEvent("t1", 0.5, accepted=True),
    }
    subscriber.callbacks = {"t0": "completed"}
    seen = Observations(
        workload=Workload(({"config": {}}, {}), range(0)),
        task_ids={0: "t0", 1: "t1"},
        tasks=[
            {"task_id": "t0", "status": "completed", "metadata": {"demo": "0"}, "error": None},
            {"task_id": "t1", "status": "failed", "metadata": {"demo": "1"}, "error": None},
        ],
        endings=[
            {"id": "e-t0", "type": "task.completed", "task_id": "t0", "source": "webhook"},
            {"id": "e-t1", "type": "task.failed", "task_id": "t1", "source": "poll"},
        ],
        subscriber=subscriber,
        creates_by_endpoint={"http://x/hooks/piapi/t0": 1, "http://x/hooks/piapi/t1?attempt=2": 1},
    )
    return replace(seen, **changes)


def with_task(number: int, **changes: Any) -> Observations:
    seen = observations()
    tasks = [dict(task) for task in seen.tasks]
    tasks[number] |= changes
    return replace(seen, tasks=tasks)


def with_subscriber(**changes: Any) -> Observations:
    seen = observations()
    for name, value in changes.items():
        setattr(seen.subscriber, name, value)
    return seen


def test_without_losses_there_is_no_fault() -> None:
    result = check(observations())
    assert result.faults == []
    assert result.ended_by == {"webhook": 1, "poll": 1}
    assert result.by_status == {"completed": 1, "failed": 1}
    assert (result.p50, result.p99) == (0.01, 0.5)


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (observations(task_ids={0: "t0"}), "the create of task number 1 was not answered"),
        (observations(task_ids={0: "t0", 1: "t9"}), "was answered with 200, but the task does not exist"),
        (with_task(0, status="processing"), "has not ended"),
        (with_task(0, metadata={"demo": "1"}), "exists 2 times"),
        (observations(tasks=observations().tasks[:1]), "1 tasks exist, but 2 were created"),
        (with_task(0, status="failed"), "its ending events are"),
        (observations(endings=[]), "its ending events are"),
        (observations(endings=[*observations().endings, observations().endings[0]]), "its ending events are"),
        (with_subscriber(events={}), "did not receive task.failed"),
        (with_subscriber(counts=Counter(forged=3)), "3 notifications had an invalid signature"),
        (with_subscriber(callbacks={}), "received None, but the task is completed"),
        (observations(creates_by_endpoint={"http://x/hooks/piapi/t0": 2}), "more than one task"),
        (with_task(1, error={"code": "submission_unknown"}), "failed with submission_unknown, but the provider has it"),
    ],
)
def test_every_loss_and_every_duplicate_is_a_fault(seen: Observations, fault: str) -> None:
    assert any(fault in found for found in check(seen).faults)


def test_an_event_that_was_only_refused_counts_as_not_notified() -> None:
    events = {"e-t0": ReceivedEvent("t0", 0.01), "e-t1": ReceivedEvent("t1", 0.5)}
    assert check(with_subscriber(events=events)).not_notified == 2
