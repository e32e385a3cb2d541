"""The tasks of a cancelled run: never sent or tried again, and recalled for as long as the provider does not answer."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from models import EventType, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.providers import (
    PROVIDER_UNAUTHORIZED,
    Cancelled,
    CancelOutcome,
    Found,
    Missing,
    NoAnswer,
    NotMade,
    Refused,
    SubmitOutcome,
    UnknownOutcome,
)
from receiver.storage.leases import Intent, mark_sending
from receiver.tracking.poll import MissingRule
from tests.fakes.claims import claim_polls, claim_unsent
from tests.integration.harness import tracking
from tests.integration.run_harness import RunHarness, told

ONE_DATABASE = pytest.mark.sqlite_only("the statements are those of other tests; only the answers differ")
DOWN = NoAnswer("it is down")
REFUSED = Refused(400, "only pending tasks", {})
OUR_KEY_REFUSED = Refused(502, "wrong key", {}, PROVIDER_UNAUTHORIZED)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[RunHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield RunHarness(harness)


async def test_a_step_that_waits_to_be_sent_is_cancelled_in_the_transaction_of_the_cancel(harness: RunHarness) -> None:
    run = await harness.begin("a", "b")
    assert await harness.cancel(run) == {"a": "cancelled", "b": "cancelled"}
    task, step = await harness.task(run), await harness.step(run, "a")
    assert (task["status"], task["due_at"], task["provider_task_id"]) == (TaskStatus.CANCELLED, None, None)
    assert step["error"] == {"code": "cancelled", "message": "the task was cancelled"}
    *_, cancelled, ended = await harness.tracking.events()
    assert (cancelled["type"], ended["type"]) == (EventType.TASK_CANCELLED, EventType.RUN_CANCELLED)
    assert [each["status"] for each in ended["snapshot"]["steps"]] == ["cancelled", "cancelled"]


async def test_a_claimed_step_whose_intent_is_not_written_yet_is_not_sent_after_the_cancel(harness: RunHarness) -> None:
    run = await harness.begin("a")
    writer, now = harness.tracking.database.writer, utc_now() + timedelta(minutes=1)
    (due,) = await claim_unsent(writer, now, now + timedelta(minutes=3), 10, (0, False))
    await harness.cancel(run)
    await harness.poller.act_on(due)
    assert "submit" not in harness.provider.calls
    assert await writer.write(mark_sending, Intent(due.state.uid, 1, 60.0)) is False
    assert (await harness.task(run))["status"] == TaskStatus.CANCELLED


async def test_a_step_between_two_attempts_is_cancelled_at_once(harness: RunHarness) -> None:
    run = await harness.sent()
    uid = (await harness.task(run))["uid"]
    await harness.tracking.receive(TaskStatus.FAILED, uid)
    assert (await harness.task(run))["attempt"] == 2
    assert await harness.cancel(run) == {"a": "cancelled"}


async def test_a_step_under_way_is_recalled_and_its_provider_s_consent_ends_it(harness: RunHarness) -> None:
    run = await harness.sent()
    assert await harness.cancel(run) == {"a": "queued"}
    task = await harness.task(run)
    assert (task["due_at"] <= utc_now(), task["max_attempts"]) == (True, 1)
    await harness.act_on(run)
    assert harness.provider.calls == ["cancel"]
    assert (await harness.step(run, "a"))["status"] == "cancelled"


@ONE_DATABASE
@pytest.mark.parametrize("answer", [DOWN, OUR_KEY_REFUSED, Missing("not visible yet")])
async def test_a_recall_that_settles_nothing_is_made_again_and_the_task_is_polled_meanwhile(
    harness: RunHarness, answer: CancelOutcome
) -> None:
    run = await harness.sent()
    await harness.cancel(run)
    harness.provider.cancels = [answer, answer, Cancelled("success")]
    for _ in range(2):
        await harness.act_on(run)
        due_at = (await harness.task(run))["due_at"]
        assert utc_now() < due_at < utc_now() + timedelta(seconds=60)
    await harness.act_on(run)
    assert harness.provider.calls == ["cancel", "fetch", "cancel", "fetch", "cancel"]
    assert (await harness.task(run))["status"] == TaskStatus.CANCELLED


@ONE_DATABASE
async def test_a_provider_that_is_down_altogether_is_asked_again_later(harness: RunHarness) -> None:
    run = await harness.sent()
    await harness.cancel(run)
    harness.provider.cancels, harness.provider.fetches = [DOWN], [NoAnswer("it is down", retry_after=300)]
    await harness.act_on(run)
    task = await harness.task(run)
    assert utc_now() + timedelta(seconds=200) < task["due_at"] < utc_now() + timedelta(seconds=400)
    assert (task["cancel_requested_at"] is None, task["leased"]) == (False, False)


@ONE_DATABASE
async def test_a_result_that_a_poll_finds_ends_an_unanswered_recall(harness: RunHarness) -> None:
    run = await harness.sent()
    await harness.cancel(run)
    harness.provider.cancels = [DOWN]
    harness.provider.fetches = [Found(told(TaskStatus.COMPLETED, output={"image_url": "u"}))]
    await harness.act_on(run)
    task, step = await harness.task(run), await harness.step(run, "a")
    assert (task["status"], task["due_at"], step["status"]) == (TaskStatus.COMPLETED, None, "completed")


async def test_a_refused_recall_is_dropped_and_the_task_runs_to_its_end_without_another_attempt(
    harness: RunHarness,
) -> None:
    run = await harness.sent()
    await harness.cancel(run)
    harness.provider.cancels = [REFUSED]
    await harness.act_on(run)
    task = await harness.task(run)
    assert (task["cancel_requested_at"], task["leased"], task["due_at"] > utc_now()) == (None, False, True)
    harness.provider.fetches = [Found(told(TaskStatus.FAILED))]
    await harness.act_on(run)
    task = await harness.task(run)
    assert (task["status"], task["attempt"], harness.provider.calls) == (TaskStatus.FAILED, 1, ["cancel", "fetch"])


@ONE_DATABASE
async def test_a_provider_that_keeps_saying_that_it_has_no_such_task_is_believed_in_the_end(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.poller._recaller, "_believes_missing", MissingRule(polls=3, seconds=0).believes)
    run = await harness.sent()
    await harness.cancel(run)
    harness.provider.cancels = [Missing("no such task")]
    for count in (1, 2, 3):
        assert (await harness.task(run))["cancel_requested_at"] is not None, count
        await harness.act_on(run)
    assert (await harness.task(run))["cancel_requested_at"] is None


@pytest.mark.parametrize(
    ("answer", "status"),
    [(None, TaskStatus.PENDING), (NotMade("429"), TaskStatus.QUEUED), (UnknownOutcome("502"), None)],
)
async def test_a_step_that_is_being_sent_is_due_at_once_when_the_outcome_is_known(
    harness: RunHarness, answer: SubmitOutcome | None, status: TaskStatus | None
) -> None:
    run = await harness.begin("a")

    async def cancel() -> None:
        assert await harness.cancel(run) == {"a": "queued"}

    harness.provider.during_submit = cancel
    if answer is not None:
        harness.provider.submits = [answer]
    await harness.act_on(run)
    task = await harness.task(run)
    assert (task["due_at"] <= utc_now(), task["leased"]) == (True, False)
    assert status in (None, task["status"])
    intent = Intent(task["uid"], task["attempt"], 60.0)
    assert await harness.tracking.database.writer.write(mark_sending, intent) is False
    harness.provider.calls.clear()
    await harness.act_on(run)
    if isinstance(answer, UnknownOutcome):  # it may exist: it is searched for, and recalled when it is found
        assert harness.provider.calls == ["history"]
        await harness.tracking.receive(TaskStatus.PENDING, task["uid"])
        assert (await harness.task(run))["due_at"] <= utc_now()
        await harness.act_on(run)
    assert harness.provider.calls == {Submission.ACCEPTED: ["cancel"], Submission.WAITING: []}.get(
        task["submission"], ["history", "cancel"]
    )
    assert (await harness.task(run))["status"] == TaskStatus.CANCELLED


async def test_a_poll_that_was_under_way_at_the_cancel_does_not_put_the_recall_off(harness: RunHarness) -> None:
    run = await harness.sent()
    writer, then = harness.tracking.database.writer, utc_now() + timedelta(hours=1)
    (due,) = await claim_polls(writer, then, then, 10)
    await harness.cancel(run)
    harness.provider.fetches = [DOWN]
    await harness.poller.act_on(due)
    assert (harness.provider.calls, (await harness.task(run))["due_at"] <= utc_now()) == (["fetch"], True)


@ONE_DATABASE
async def test_cancelling_a_run_again_repeats_a_recall_that_was_refused(harness: RunHarness) -> None:
    run = await harness.sent()
    harness.provider.cancels = [REFUSED, Cancelled("success")]
    for _ in range(2):
        await harness.cancel(run)
        await harness.act_on(run)
    assert (await harness.task(run))["status"] == TaskStatus.CANCELLED
    assert (await harness.tracking.types()).count(EventType.RUN_CANCELLED) == 1


async def test_a_refusal_does_not_drop_a_recall_that_was_requested_meanwhile(harness: RunHarness) -> None:
    run = await harness.sent()
    await harness.cancel(run)
    writer, then = harness.tracking.database.writer, utc_now() + timedelta(hours=1)
    (due,) = await claim_polls(writer, then, then, 10)
    await harness.cancel(run)
    harness.provider.cancels = [REFUSED]
    await harness.poller.act_on(due)
    assert (await harness.task(run))["cancel_requested_at"] is not None


async def test_retrying_the_run_drops_the_recall_and_gives_the_step_its_attempts_back(harness: RunHarness) -> None:
    run = await harness.sent(max_attempts=3)
    await harness.cancel(run)
    assert (await harness.runs.retry(1, run))["status"] == "in_progress"
    task = await harness.task(run)
    assert (task["cancel_requested_at"], task["max_attempts"]) == (None, 3)
    await harness.act_on(run)
    assert harness.provider.calls == ["fetch"]
    await harness.tracking.receive(TaskStatus.FAILED, task["uid"])
    assert (await harness.task(run))["attempt"] == 2


@ONE_DATABASE
async def test_a_run_of_another_organization_is_neither_found_nor_changed(harness: RunHarness) -> None:
    run, other = await harness.begin("a"), await harness.tracking.organization("another")
    with pytest.raises(Exception, match="does not exist"):
        await harness.runs.cancel(other, run)
    assert (await harness.task(run))["status"] == TaskStatus.QUEUED
