"""Ringback's own verdicts, while the provider is heard of at the same moment: what was heard goes before them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from models import EventType, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.domain.updates import ProviderUpdate
from receiver.providers import Cancelled, CancelOutcome, FetchOutcome, NewTask, NoAnswer, SubmitOutcome
from receiver.storage.tables import tasks
from receiver.tracking.cancel import Canceller
from receiver.tracking.poll import Poller
from receiver.tracking.submit import Submitter
from tests.integration.harness import LEASE, LOOKS, TrackingHarness, tracking

LONG_AGO = timedelta(seconds=LOOKS.timeout + 60)


class Silent:
    """A provider that gives no answer; `meanwhile` happens while it is asked."""

    name = "piapi"

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def _ask(self) -> None:
        if self.meanwhile is not None:
            await self.meanwhile()

    async def submit(self, task: NewTask, **_: Any) -> SubmitOutcome:
        raise AssertionError("it was sent again")

    async def fetch(self, provider_task_id: str, **_: Any) -> FetchOutcome:
        await self._ask()
        return NoAnswer("it is down")

    async def cancel(self, provider_task_id: str, **_: Any) -> CancelOutcome:
        await self._ask()
        return Cancelled("success")

    async def history(self, **_: Any) -> list[dict[str, Any]] | None:
        await self._ask()
        return []

    async def account_info(self) -> tuple[int, dict[str, Any]]:
        raise NotImplementedError

    def parse_webhook(self, body: bytes, *, attempt: int | None = None) -> ProviderUpdate:
        raise NotImplementedError

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        raise NotImplementedError

    def redact(self, body: bytes) -> str:
        raise NotImplementedError

    def paused_for(self) -> float:
        return 0.0

    async def aclose(self) -> None:
        return


class Watched:
    """A house with a provider that is silent, and the looker that asks it."""

    def __init__(self, harness: TrackingHarness) -> None:
        self.tracking = harness
        self.provider = Silent()
        providers = {"piapi": self.provider}
        writer = harness.database.writer
        keyring = KeyRing(["a-master-key-for-tests"])
        submitter = Submitter(harness.database, harness.applier, providers, keyring, None, lease_seconds=LEASE)
        self.poller = Poller(harness.database, harness.applier, submitter, providers, keyring, unknown_seconds=600)
        self.canceller = Canceller(writer, harness.applier, providers)

    async def age(self, uid: str, **values: Any) -> None:
        """Make a task one that nobody heard of for too long."""
        then = utc_now() - LONG_AGO
        old = {"last_update_at": then, "submitted_at": then, "due_at": utc_now(), **values}
        await self.tracking.database.writer.run(
            lambda tx: tx.execute(update(tasks).where(tasks.c.uid == uid).values(old))
        )

    async def attend(self, uid: str) -> None:
        """Claim the task and act on it."""
        now = utc_now()
        claimed = await self.tracking.database.writer.run(
            lambda tx: tx.claim_polls(now, now + timedelta(minutes=3), 10)
        )
        (due,) = [each for each in claimed if each.state.uid == uid]
        await self.poller.attend(due)

    def during_the_call(self, status: TaskStatus, uid: str, **fields: Any) -> None:
        """Have a webhook come while the provider is asked."""
        self.provider.meanwhile = lambda: self.tracking.hear(status, uid, **fields)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield Watched(harness)


async def test_a_task_that_nobody_heard_of_times_out(watched: Watched) -> None:
    uid = await watched.tracking.create()
    await watched.tracking.hear(TaskStatus.PROCESSING, uid)
    await watched.age(uid)
    await watched.attend(uid)
    task = await watched.tracking.task(uid)
    assert (task["status"], task["error"]["code"], task["due_at"]) == (TaskStatus.FAILED, "timed_out", None)
    assert (await watched.tracking.types())[-1] == EventType.TASK_FAILED


async def test_a_task_that_is_heard_of_at_the_last_moment_does_not_time_out(watched: Watched) -> None:
    uid = await watched.tracking.create()
    await watched.tracking.hear(TaskStatus.PROCESSING, uid)
    await watched.age(uid)
    watched.during_the_call(TaskStatus.PROCESSING, uid, progress=50)
    await watched.attend(uid)
    task = await watched.tracking.task(uid)
    assert (task["status"], task["progress"], task["error"]) == (TaskStatus.PROCESSING, 50, None)
    assert EventType.TASK_FAILED not in await watched.tracking.types()


async def test_a_submission_that_nobody_heard_of_fails_and_is_never_sent_again(watched: Watched) -> None:
    uid = await watched.tracking.create()
    await watched.age(uid, submission=Submission.UNKNOWN)
    await watched.attend(uid)
    task = await watched.tracking.task(uid)
    assert (task["status"], task["error"]["code"]) == (TaskStatus.FAILED, "submission_unknown")


async def test_a_submission_that_a_webhook_identifies_at_the_last_moment_is_known(watched: Watched) -> None:
    uid = await watched.tracking.create()
    await watched.age(uid, submission=Submission.UNKNOWN)
    watched.during_the_call(TaskStatus.PROCESSING, uid)
    await watched.attend(uid)
    task = await watched.tracking.task(uid)
    assert (task["status"], task["provider_task_id"], task["error"]) == (TaskStatus.PROCESSING, "pt-1", None)
    assert EventType.TASK_FAILED not in await watched.tracking.types()


async def test_news_during_a_look_in_vain_postpones_the_next_one(watched: Watched) -> None:
    uid = await watched.tracking.create()
    await watched.tracking.hear(TaskStatus.PROCESSING, uid)
    await watched.age(uid, last_update_at=utc_now() - timedelta(minutes=5), poll_count=9)
    watched.during_the_call(TaskStatus.PROCESSING, uid, progress=50)
    before = utc_now()
    await watched.attend(uid)
    task = await watched.tracking.task(uid)
    assert task["poll_count"] <= 1
    assert task["due_at"] <= utc_now() + timedelta(seconds=1.5 * LOOKS.first)
    assert task["due_at"] >= before + timedelta(seconds=LOOKS.first)


async def test_an_end_during_a_look_in_vain_leaves_nothing_due(watched: Watched) -> None:
    uid = await watched.tracking.create()
    await watched.tracking.hear(TaskStatus.PROCESSING, uid)
    await watched.age(uid)
    watched.during_the_call(TaskStatus.COMPLETED, uid)
    await watched.attend(uid)
    task = await watched.tracking.task(uid)
    assert (task["status"], task["due_at"]) == (TaskStatus.COMPLETED, None)


@pytest.mark.parametrize("end", [TaskStatus.COMPLETED, TaskStatus.FAILED])
async def test_a_task_that_ended_while_it_was_cancelled_keeps_its_end(watched: Watched, end: TaskStatus) -> None:
    uid = await watched.tracking.create()
    await watched.tracking.hear(TaskStatus.PENDING, uid)
    watched.during_the_call(end, uid)
    with pytest.raises(Exception, match=f"was {end} before"):
        await watched.canceller.cancel(await watched.tracking.task(uid))
    assert (await watched.tracking.task(uid))["status"] == end


async def test_a_cancelled_task_keeps_what_the_provider_told(watched: Watched) -> None:
    uid = await watched.tracking.create()
    told = {"logs": ["step 1"], "meta": {"usage": {"frozen": 3}}}
    await watched.tracking.hear(TaskStatus.PENDING, uid, **told)
    await watched.canceller.cancel(await watched.tracking.task(uid))
    task = await watched.tracking.task(uid)
    assert (task["status"], task["logs"], task["meta"]) == (TaskStatus.CANCELLED, told["logs"], told["meta"])
