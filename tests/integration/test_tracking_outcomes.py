"""Ringback's own decisions, made while an update arrives: the update takes precedence."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from models import EventType, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import (
    Cancelled,
    CancelOutcome,
    CancelRequested,
    FetchOutcome,
    Found,
    History,
    NewTask,
    NoAnswer,
    Providers,
    ProviderTask,
    SubmitOutcome,
)
from receiver.storage.tables import tasks
from receiver.tracking.cancel import Canceller
from tests.fakes.claims import claim_polls
from tests.integration.harness import SCHEDULE, BaseFakeProvider, TrackingHarness, tracking

LONG_AGO = timedelta(seconds=SCHEDULE.timeout + 60)


class SilentProvider(BaseFakeProvider):
    """A provider that never answers; `during_call` is awaited during each call."""

    def __init__(self) -> None:
        self.during_call: Callable[[], Awaitable[Any]] | None = None
        self.looks = 0
        self.asked_since: list[datetime] = []
        self.items: list[dict[str, Any]] = []
        """What it lists, as the fields of updates."""
        self.found: ProviderUpdate | None = None
        """What a poll finds, if it is answered at all."""
        self.cancelled: CancelOutcome = Cancelled("success")

    async def _ask(self) -> None:
        if self.during_call is not None:
            await self.during_call()

    async def submit(self, task: NewTask, **_: Any) -> SubmitOutcome:
        raise AssertionError("it was sent again")

    async def fetch(self, task: ProviderTask, **_: Any) -> FetchOutcome:
        await self._ask()
        return NoAnswer("it is down") if self.found is None else Found(self.found)

    async def cancel(self, task: ProviderTask, **_: Any) -> CancelOutcome:
        await self._ask()
        return self.cancelled

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        return ProviderUpdate(source=Source.POLL, status=TaskStatus.PENDING, **task)

    async def history(
        self, *, since: datetime, keep: Callable[[dict[str, Any]], bool] | None = None, **_: Any
    ) -> History:
        self.looks += 1
        self.asked_since.append(since)
        wanted = [item for item in self.items if keep is None or keep(item)]
        await self._ask()
        return History(wanted, is_complete=True)


class PollingHarness:
    """A database with a provider that never answers, and the poller that calls it."""

    def __init__(self, harness: TrackingHarness) -> None:
        self.tracking = harness
        self.provider = SilentProvider()
        _, self.poller = harness.calling(self.provider)
        self.canceller = Canceller(harness.database.writer, harness.applier, Providers({"piapi": self.provider}))

    async def age(self, uid: str, **values: Any) -> None:
        """Set a task's times so that it has had no update for too long."""
        then = utc_now() - LONG_AGO
        old = {"last_update_at": then, "submitted_at": then, "due_at": utc_now(), **values}
        await self.tracking.database.writer.run(
            lambda tx: tx.execute(update(tasks).where(tasks.c.uid == uid).values(old))
        )

    async def act_on(self, uid: str) -> None:
        """Claim the task and act on it."""
        now = utc_now()
        claimed = await claim_polls(self.tracking.database.writer, now, now + timedelta(minutes=3), 10)
        (due,) = [each for each in claimed if each.state.uid == uid]
        await self.poller.act_on(due)

    def during_the_call(self, status: TaskStatus, uid: str, **fields: Any) -> None:
        """Make a webhook arrive while the provider is called."""
        self.provider.during_call = lambda: self.tracking.receive(status, uid, **fields)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[PollingHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield PollingHarness(harness)


async def test_a_task_without_updates_times_out(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    await harness.age(uid)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["error"]["code"]) == (TaskStatus.FAILED, "timed_out")
    assert (await harness.tracking.types())[-1] == EventType.TASK_FAILED


async def test_a_time_out_after_an_unknown_word_keeps_word_output_and_error(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    said = {"code": 7, "message": "held for review", "raw_message": "", "detail": None}
    await harness.tracking.receive(None, uid, word="quarantined", output={"image_url": "u"}, error=said)
    await harness.age(uid)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["error"]["code"], task["error"]["detail"]) == ("timed_out", said)
    assert "'quarantined'" in task["error"]["message"]
    assert (task["output"], task["words"]) == ({"image_url": "u"}, ["quarantined"])


async def test_a_failed_poll_and_a_timeout_are_logged_with_the_ids_of_the_api(tmp_path: Path) -> None:
    with capture_logs() as records:
        async with tracking(tmp_path) as tracked:
            harness = PollingHarness(tracked)
            uid = await tracked.create()
            await tracked.receive(TaskStatus.PROCESSING, uid)
            await harness.age(uid)
            await harness.act_on(uid)
    failed_poll, timed_out, ended = [record for record in records if record.get("task_id") == uid]
    assert (failed_poll["event"], failed_poll["log_level"]) == ("poll failed", "warning")
    assert (failed_poll["provider_task_id"], failed_poll["error"]) == ("pt-1", "it is down")
    assert (timed_out["event"], timed_out["log_level"]) == ("task failed by Ringback", "warning")
    assert timed_out["error_code"] == "timed_out"
    assert (ended["event"], ended["state"], ended["source"]) == ("task ended", "failed", "poll")
    assert ended["error_code"] == "timed_out"


async def test_a_task_with_an_update_at_the_last_moment_does_not_time_out(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    await harness.age(uid)
    harness.during_the_call(TaskStatus.PROCESSING, uid, progress=50)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["progress"], task["error"]) == (TaskStatus.PROCESSING, 50, None)
    assert EventType.TASK_FAILED not in await harness.tracking.types()


async def test_an_unknown_submission_without_updates_fails_and_is_never_sent_again(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.age(uid, submission=Submission.UNKNOWN)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["submission"]) == (TaskStatus.QUEUED, Submission.UNKNOWN)  # one look proves nothing
    await harness.age(uid, missing_since=utc_now() - LONG_AGO)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["error"]["code"]) == (TaskStatus.FAILED, "submission_unknown")


async def test_before_a_lost_create_is_given_up_the_list_is_read_from_long_before_it(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.age(uid, submission=Submission.UNKNOWN, submitted_at=utc_now() - timedelta(seconds=30))
    await harness.act_on(uid)
    await harness.age(uid)
    await harness.act_on(uid)
    submitted_at = (await harness.tracking.task(uid))["submitted_at"]
    assert utc_now() - harness.provider.asked_since[0] < timedelta(minutes=10)
    assert submitted_at - harness.provider.asked_since[1] > timedelta(hours=1)  # a clock may be an hour wrong


async def test_a_task_whose_polls_are_answered_does_not_time_out_before_the_limit(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    harness.provider.found = ProviderUpdate(
        source=Source.POLL, status=TaskStatus.PROCESSING, provider_task_id="pt-1", attempt=1
    )
    await harness.age(uid)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["last_update_at"] > utc_now() - LONG_AGO) == (TaskStatus.PROCESSING, True)
    await harness.age(uid, updated_at=utc_now() - timedelta(seconds=SCHEDULE.limit + 1))
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["error"]["code"]) == (TaskStatus.FAILED, "timed_out")
    assert "has not changed" in task["error"]["message"]


@pytest.mark.parametrize("is_begun", [True, False])
async def test_an_entry_that_may_be_of_a_create_that_began_meanwhile_is_not_taken(
    harness: PollingHarness, is_begun: bool
) -> None:
    uid = await harness.tracking.create()
    await harness.age(uid, submission=Submission.UNKNOWN, submitted_at=utc_now())
    harness.provider.items = [
        {"provider_task_id": "pt-9", "model": "flux", "input": {"prompt": "a cat"}, "created_at": utc_now()}
    ]
    harness.provider.during_call = harness.tracking.create if is_begun else None
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert task["provider_task_id"] == (None if is_begun else "pt-9")


async def test_one_look_at_the_list_serves_all_lost_creates_that_are_due(harness: PollingHarness) -> None:
    uids = [await harness.tracking.create() for _ in range(100)]
    for uid in uids:
        await harness.age(uid, submission=Submission.UNKNOWN)
    now = utc_now()
    (due,) = await claim_polls(harness.tracking.database.writer, now, now + timedelta(minutes=3), 1)
    await harness.poller.act_on(due)
    rows = await harness.tracking.tasks()
    assert {(row["missing_count"], row["leased"]) for row in rows} == {(1, False)}
    assert harness.provider.looks == 1


async def test_an_unknown_submission_that_a_webhook_identifies_at_the_last_moment_is_accepted(
    harness: PollingHarness,
) -> None:
    uid = await harness.tracking.create()
    await harness.age(uid, submission=Submission.UNKNOWN)
    harness.during_the_call(TaskStatus.PROCESSING, uid)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["provider_task_id"], task["error"]) == (TaskStatus.PROCESSING, "pt-1", None)
    assert EventType.TASK_FAILED not in await harness.tracking.types()


async def test_an_update_during_a_failed_poll_postpones_the_next_poll(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    await harness.age(uid, last_update_at=utc_now() - timedelta(minutes=5), poll_count=9)
    harness.during_the_call(TaskStatus.PROCESSING, uid, progress=50)
    before = utc_now()
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert task["poll_count"] <= 1
    assert task["due_at"] <= utc_now() + timedelta(seconds=1.5 * SCHEDULE.first)
    assert task["due_at"] >= before + timedelta(seconds=SCHEDULE.first)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_look_that_is_asked_for_during_a_poll_is_still_due_after_it(
    harness: PollingHarness, is_answered: bool
) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    await harness.age(uid, last_update_at=utc_now() - timedelta(minutes=5))
    if is_answered:
        harness.provider.found = ProviderUpdate(
            source=Source.POLL, status=TaskStatus.PROCESSING, provider_task_id="pt-1", attempt=1
        )
    harness.provider.during_call = lambda: harness.poller.poll_soon([uid])
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["due_at"] <= utc_now(), task["leased"]) == (True, False)
    harness.provider.during_call = None
    await harness.act_on(uid)  # that look, after which the next one is planned
    assert (await harness.tracking.task(uid))["due_at"] > utc_now()


async def test_a_look_that_is_asked_for_before_an_exception_is_counted_is_still_due(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    await harness.poller.poll_soon([uid])
    state = (await harness.tracking.database.writer.run(lambda tx: tx.load_tasks([uid])))[uid]
    await harness.poller.count_exception(state, ValueError())
    task = await harness.tracking.task(uid)
    assert (task["exception_count"], task["due_at"] <= utc_now(), task["leased"]) == (1, True, False)


async def test_a_look_that_is_asked_for_during_a_refused_recall_is_still_due_after_it(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    await harness.age(uid, cancel_requested_at=utc_now())
    harness.provider.cancelled = CancelRequested("noted")
    harness.provider.during_call = lambda: harness.poller.poll_soon([uid])
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["cancel_requested_at"], task["due_at"] <= utc_now(), task["leased"]) == (None, True, False)


async def test_an_end_during_a_failed_poll_leaves_nothing_due(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PROCESSING, uid)
    await harness.age(uid)
    harness.during_the_call(TaskStatus.COMPLETED, uid)
    await harness.act_on(uid)
    task = await harness.tracking.task(uid)
    assert (task["status"], task["due_at"]) == (TaskStatus.COMPLETED, None)


@pytest.mark.parametrize("end", [TaskStatus.COMPLETED, TaskStatus.FAILED])
async def test_a_task_that_ended_while_it_was_cancelled_keeps_its_end(harness: PollingHarness, end: TaskStatus) -> None:
    uid = await harness.tracking.create()
    await harness.tracking.receive(TaskStatus.PENDING, uid)
    harness.during_the_call(end, uid)
    with pytest.raises(Exception, match=f"was {end} before"):
        await harness.canceller.cancel(await harness.tracking.task(uid))
    assert (await harness.tracking.task(uid))["status"] == end


async def test_a_cancelled_task_keeps_the_content_of_its_last_update(harness: PollingHarness) -> None:
    uid = await harness.tracking.create()
    content = {"logs": ["step 1"], "meta": {"usage": {"frozen": 3}}}
    await harness.tracking.receive(TaskStatus.PENDING, uid, **content)
    await harness.canceller.cancel(await harness.tracking.task(uid))
    task = await harness.tracking.task(uid)
    assert (task["status"], task["logs"], task["meta"]) == (TaskStatus.CANCELLED, content["logs"], content["meta"])
