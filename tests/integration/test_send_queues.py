"""In which order tasks are sent, without HTTP: send queues that take turns, intents, and task references."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from models import EventType, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import (
    Accepted,
    CallerKey,
    CallPurpose,
    Cancelled,
    CancelOutcome,
    FetchOutcome,
    History,
    NewTask,
    NoAnswer,
    NotMade,
    Providers,
    ProviderTask,
    SubmitOutcome,
)
from receiver.storage.tables import tasks
from receiver.tracking.cancel import Canceller
from receiver.tracking.create import TaskRequest
from receiver.tracking.submit import Outgoing
from receiver.tracking.update_batch import Arrival
from receiver.workers.task_worker import TaskWorker
from tests.integration.harness import LEASE, SCHEDULE, BaseFakeProvider, TrackingHarness, tracking


class RecordingProvider(BaseFakeProvider):
    """A provider that accepts everything and records its callers; `before_turn` is awaited before each create call."""

    def __init__(self) -> None:
        self.callers: list[CallerKey | None] = []
        self.inputs: list[Any] = []
        self.pause = 0.0
        self.called = asyncio.Event()
        self.before_turn: Callable[[], Awaitable[Any]] | None = None

    async def submit(
        self, task: NewTask, *, caller: CallerKey | None = None, confirm: Callable[[], Awaitable[bool]] | None = None
    ) -> SubmitOutcome:
        if self.before_turn is not None:
            await self.before_turn()
        if confirm is not None and not await confirm():
            return NotMade("no longer")
        self._note(caller)
        self.inputs.append(task.input)
        return Accepted(ProviderUpdate(source=Source.SUBMIT, status=None, provider_task_id=f"pt-{len(self.inputs)}"))

    async def fetch(self, task: ProviderTask, *, caller: CallerKey | None = None, **_: Any) -> FetchOutcome:
        self._note(caller)
        return NoAnswer("it is down")

    async def cancel(self, task: ProviderTask, *, caller: CallerKey | None = None) -> CancelOutcome:
        self._note(caller)
        return Cancelled("success")

    async def history(self, *, caller: CallerKey | None = None, **_: Any) -> History:
        self._note(caller)
        return History([], is_complete=True)

    def key_refusal(self) -> str | None:
        return None

    def paused_for(self) -> float:
        return self.pause

    def _note(self, caller: CallerKey | None) -> None:
        self.callers.append(caller)
        self.called.set()

    async def until_called(self, calls: int) -> None:
        """Wait until it was called `calls` times in all. Raises TimeoutError."""
        async with asyncio.timeout(20):
            while len(self.callers) < calls:
                self.called.clear()
                await self.called.wait()


class SendingHarness:
    """A database with a provider that accepts everything, and what sends tasks to it."""

    def __init__(self, harness: TrackingHarness) -> None:
        self.tracking = harness
        self.provider = RecordingProvider()
        self.submitter, self.poller = harness.calling(self.provider)
        self.canceller = Canceller(harness.database.writer, harness.applier, Providers({"piapi": self.provider}))

    async def bulk(self, count: int, organization_id: int = 1, **fields: Any) -> list[str]:
        """Create tasks together; return their ids."""
        requests = [request(organization_id, **fields) for _ in range(count)]
        created = await self.tracking.database.writer.write(self.tracking.creator.create_bulk, requests)
        return [each.uid for each in created]

    async def send(self, uid: str, submission: Submission | None = None) -> SubmitOutcome:
        """Send a task, as the process that claimed it would; `submission` is what it was then, if not as it is now."""
        row = await self.tracking.task(uid)
        outgoing = Outgoing(
            uid=uid,
            organization_id=row["organization_id"],
            attempt=row["attempt"],
            model=row["model"],
            task_type=row["task_type"],
            input=row["input"],
            config=row["config"],
            submission=submission or Submission(row["submission"]),
            tries=row["poll_count"],
        )
        return await self.submitter.send("piapi", outgoing)

    async def wait_to_be_sent(self, uid: str) -> None:
        """Make a task that was created alone wait as after a call that made nothing."""
        values = {"submission": Submission.WAITING, "due_at": utc_now(), "leased": False}
        await self._write(uid, **values)

    async def make_due(self, uid: str) -> None:
        await self._write(uid, due_at=utc_now())

    @asynccontextmanager
    async def working(self, concurrency: int) -> AsyncIterator[None]:
        """Run a task worker."""
        worker = TaskWorker(
            self.tracking.database.writer,
            self.poller,
            self.tracking.applier.after_commit.due,
            lease_seconds=LEASE,
            concurrency=concurrency,
        )
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await worker.drain(0.5)

    async def _write(self, uid: str, **values: Any) -> None:
        change = update(tasks).where(tasks.c.uid == uid).values(values)
        await self.tracking.database.writer.run(lambda tx: tx.execute(change))


def request(organization_id: int = 1, uid: str | None = None, **fields: Any) -> TaskRequest:
    given = {"input": {"prompt": "a cat"}, **fields}
    return TaskRequest(
        uid=uid or new_id(),
        organization_id=organization_id,
        provider="piapi",
        model="flux",
        task_type="txt2img",
        **given,
    )


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SendingHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield SendingHarness(harness)


async def test_a_bulk_is_one_transaction(harness: SendingHarness) -> None:
    uid = new_id()
    twice = [request(), request(uid=uid), request(uid=uid)]
    with pytest.raises(Exception, match=r"(?i)unique"):
        await harness.tracking.database.writer.write(harness.tracking.creator.create_bulk, twice)
    assert (await harness.tracking.tasks(), await harness.tracking.events()) == ([], [])


async def test_bulks_that_share_a_transaction_get_their_own_tasks(harness: SendingHarness) -> None:
    one, two = await asyncio.gather(harness.bulk(3), harness.bulk(2, metadata={"two": True}))
    assert [task["uid"] for task in await harness.tracking.tasks() if not task["metadata"]] == one
    assert [task["uid"] for task in await harness.tracking.tasks() if task["metadata"]] == two
    assert await harness.tracking.types() == [EventType.TASK_CREATED] * 5


async def test_a_bulk_waits_to_be_sent_and_is_not_leased(harness: SendingHarness) -> None:
    await harness.bulk(3)
    rows = await harness.tracking.tasks()
    assert {(row["submission"], row["leased"], row["submitted_at"]) for row in rows} == {("waiting", False, None)}
    assert [row["due_at"] for row in rows] == sorted({row["due_at"] for row in rows})


async def test_organizations_and_single_tasks_take_turns_with_a_bulk_that_came_first(harness: SendingHarness) -> None:
    other = await harness.tracking.organization("other")
    await harness.bulk(6)
    await harness.bulk(3, other)
    for _ in range(2):
        await harness.wait_to_be_sent(await harness.tracking.create())
    async with harness.working(concurrency=1):
        await harness.provider.until_called(11)
    create, bulk, theirs = (
        CallerKey(1, CallPurpose.CREATE),
        CallerKey(1, CallPurpose.BULK),
        CallerKey(other, CallPurpose.BULK),
    )
    assert harness.provider.callers == [create, bulk, theirs, create, bulk, theirs, bulk, theirs, bulk, bulk, bulk]


async def test_a_bulk_is_sent_in_its_order(harness: SendingHarness) -> None:
    uids = await harness.bulk(8)
    async with harness.working(concurrency=1):
        await harness.provider.until_called(8)
    sent = sorted(await harness.tracking.tasks(), key=lambda row: int(str(row["provider_task_id"]).removeprefix("pt-")))
    assert [row["uid"] for row in sent] == uids


async def test_polls_do_not_wait_for_tasks_to_be_sent(harness: SendingHarness) -> None:
    (seen,) = await harness.bulk(1)
    await harness.send(seen)
    held = asyncio.Event()
    harness.provider.before_turn = held.wait
    await harness.bulk(5)
    async with harness.working(concurrency=1):
        await harness.make_due(seen)
        await harness.provider.until_called(2)
        assert harness.provider.callers[1] == CallerKey(1, CallPurpose.POLL)
        held.set()


async def test_calls_that_hang_delay_no_other_call(harness: SendingHarness) -> None:
    held, begun = asyncio.Event(), iter(range(26))

    async def hang() -> None:
        if next(begun) < 6:
            await held.wait()

    harness.provider.before_turn = hang
    await harness.bulk(26)
    async with harness.working(concurrency=20):
        await harness.provider.until_called(20)
        held.set()
        await harness.provider.until_called(26)


async def test_each_of_many_due_tasks_is_polled_once(harness: SendingHarness) -> None:
    uids = await harness.bulk(40)
    for uid in uids:
        await harness.send(uid)
        await harness.make_due(uid)
    async with harness.working(concurrency=20):
        await harness.provider.until_called(80)
    assert harness.provider.callers[40:] == [CallerKey(1, CallPurpose.POLL)] * 40
    assert {row["poll_count"] for row in await harness.tracking.tasks()} == {1}


async def test_polling_an_unknown_task_calls_no_provider(harness: SendingHarness) -> None:
    await harness.poller.poll_now(new_id())
    assert harness.provider.callers == []


async def test_every_call_is_made_with_its_purpose(harness: SendingHarness) -> None:
    uid = await harness.tracking.create()
    await harness.send(uid)
    await harness.poller.poll_now(uid)
    await harness.canceller.cancel(await harness.tracking.task(uid))
    lost = await harness.tracking.create()
    await harness.make_due(lost)
    async with harness.working(concurrency=1):
        await harness.provider.until_called(4)
    purposes = [CallPurpose.CREATE, CallPurpose.POLL, CallPurpose.CANCEL, CallPurpose.POLL]
    assert harness.provider.callers == [CallerKey(1, purpose) for purpose in purposes]


async def test_no_task_is_claimed_to_be_sent_while_the_provider_asks_for_a_pause(harness: SendingHarness) -> None:
    (seen,) = await harness.bulk(1)
    await harness.send(seen)
    await harness.make_due(seen)
    harness.provider.pause = 60.0
    await harness.bulk(3)
    async with harness.working(concurrency=8):
        await harness.provider.until_called(2)
        assert harness.provider.callers[1] == CallerKey(1, CallPurpose.POLL)
        assert not any(task["leased"] for task in await harness.tracking.tasks() if task["submission"] == "waiting")
        harness.provider.pause = 0.0
        await harness.provider.until_called(5)


async def test_that_a_task_is_being_sent_is_written_when_its_turn_has_come_and_not_before(
    harness: SendingHarness,
) -> None:
    (uid,) = await harness.bulk(1)
    before: list[Any] = []

    async def poll_now() -> None:
        before.append((await harness.tracking.task(uid))["submission"])

    harness.provider.before_turn = poll_now
    assert isinstance(await harness.send(uid), Accepted)
    row = await harness.tracking.task(uid)
    assert before == [Submission.WAITING]
    assert (row["submission"], row["provider_task_id"]) == (Submission.ACCEPTED, "pt-1")
    assert row["submitted_at"] is not None


async def test_a_task_that_is_cancelled_while_it_waits_for_its_turn_is_not_sent(harness: SendingHarness) -> None:
    (uid,) = await harness.bulk(1)

    async def cancel() -> None:
        await harness.canceller.cancel(await harness.tracking.task(uid))

    harness.provider.before_turn = cancel
    assert isinstance(await harness.send(uid), NotMade)
    assert harness.provider.inputs == []
    assert (await harness.tracking.task(uid))["status"] == TaskStatus.CANCELLED


async def test_of_two_processes_with_the_same_task_one_sends_it(harness: SendingHarness) -> None:
    (uid,) = await harness.bulk(1)
    outcomes = await asyncio.gather(*(harness.send(uid, Submission.WAITING) for _ in range(2)))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", "NotMade"]
    assert len(harness.provider.inputs) == 1
    assert (await harness.tracking.task(uid))["submission"] == Submission.ACCEPTED


async def test_a_process_that_stops_before_its_turn_leaves_the_task_to_another(harness: SendingHarness) -> None:
    (uid,) = await harness.bulk(1)
    held = asyncio.Event()
    harness.provider.before_turn = held.wait
    async with harness.working(concurrency=1):
        while not (await harness.tracking.task(uid))["leased"]:
            pass
    # The worker has ended the lease; the task is known not to have been sent.
    row = await harness.tracking.task(uid)
    assert (row["submission"], row["leased"]) == (Submission.WAITING, False)
    harness.provider.before_turn = None
    assert isinstance(await harness.send(uid), Accepted)


async def test_a_referenced_task_has_the_providers_id_in_the_call_and_ours_in_the_row(harness: SendingHarness) -> None:
    (origin,) = await harness.bulk(1)
    await harness.send(origin)
    given = {"origin_task_id": origin, "parts": [{"of": origin}, new_id()]}
    (uid,) = await harness.bulk(1, input=given)
    await harness.send(uid)
    assert harness.provider.inputs[1] == {"origin_task_id": "pt-1", "parts": [{"of": "pt-1"}, given["parts"][1]]}
    assert (await harness.tracking.task(uid))["input"] == given


async def test_a_task_waits_for_one_that_it_references_until_the_provider_knows_it(harness: SendingHarness) -> None:
    (origin,) = await harness.bulk(1)
    (uid,) = await harness.bulk(1, input={"origin_task_id": origin})
    assert isinstance(await harness.send(uid), NotMade)
    row = await harness.tracking.task(uid)
    assert (row["status"], row["submission"], row["submitted_at"]) == (TaskStatus.QUEUED, Submission.WAITING, None)
    assert row["due_at"] > utc_now() - timedelta(seconds=1)
    assert harness.provider.inputs == []
    await harness.send(origin)
    await harness.send(uid)
    assert harness.provider.inputs[1] == {"origin_task_id": "pt-1"}


async def test_a_task_created_alone_also_waits_and_is_known_not_to_have_been_sent(
    harness: SendingHarness,
) -> None:
    (origin,) = await harness.bulk(1)
    alone = request(input={"origin_task_id": origin})
    uid = (await harness.tracking.database.writer.write(harness.tracking.creator.create, alone)).uid
    await harness.send(uid)
    assert (await harness.tracking.task(uid))["submission"] == Submission.WAITING


@pytest.mark.parametrize("end", [TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_a_task_fails_if_one_that_it_references_ended_unknown_to_the_provider(
    harness: SendingHarness, end: TaskStatus
) -> None:
    (origin, waiting) = await harness.bulk(2)
    if end == TaskStatus.CANCELLED:
        await harness.canceller.cancel(await harness.tracking.task(origin))
    else:
        await harness.tracking.receive(end, origin, provider_task_id=None, source=Source.SUBMIT)
    (uid,) = await harness.bulk(1, input={"both": [waiting, origin]}, max_attempts=5)
    await harness.send(uid)
    row = await harness.tracking.task(uid)
    assert (row["status"], row["submission"], row["attempt"]) == (TaskStatus.FAILED, Submission.REFUSED, 1)
    assert row["error"]["code"] == "mentioned_task_unknown"
    assert origin in row["error"]["message"]
    assert end in row["error"]["message"]
    assert harness.provider.inputs == []


async def test_a_task_that_ended_is_referenced_by_its_providers_id_too(harness: SendingHarness) -> None:
    (origin,) = await harness.bulk(1)
    await harness.send(origin)
    await harness.tracking.receive(TaskStatus.FAILED, origin)
    (uid,) = await harness.bulk(1, input={"origin_task_id": origin})
    await harness.send(uid)
    assert harness.provider.inputs[1] == {"origin_task_id": "pt-1"}


async def test_a_task_of_another_organization_is_not_resolved(harness: SendingHarness) -> None:
    (theirs,) = await harness.bulk(1, await harness.tracking.organization("other"))
    await harness.send(theirs)
    (uid,) = await harness.bulk(1, input={"origin_task_id": theirs})
    await harness.send(uid)
    assert harness.provider.inputs[1] == {"origin_task_id": theirs}


@pytest.mark.parametrize("written", [str, str.upper])
async def test_a_task_that_names_the_provider_s_task_of_another_organization_is_not_sent(
    harness: SendingHarness, written: Callable[[str], str]
) -> None:
    ours, theirs = new_id(), new_id()
    other = await harness.tracking.organization("other")
    for organization_id, provider_task_id in ((1, ours), (other, theirs)):
        update = ProviderUpdate(
            source=Source.POLL, status=TaskStatus.PROCESSING, provider_task_id=provider_task_id, attempt=1
        )
        await harness.tracking.apply(Arrival(provider="piapi", update=update, organization_id=organization_id))
    (sent, refused) = [(await harness.bulk(1, input={"origin_task_id": written(each)}))[0] for each in (ours, theirs)]
    await harness.send(sent)
    await harness.send(refused)
    assert harness.provider.inputs == [{"origin_task_id": written(ours)}]
    row = await harness.tracking.task(refused)
    assert (row["status"], row["submission"]) == (TaskStatus.FAILED, Submission.REFUSED)
    assert row["error"]["code"] == "mentioned_task_unknown"
    assert f"task {theirs}, which is not one of yours" in row["error"]["message"]


async def test_a_task_that_waits_longer_than_the_time_out_is_sent_when_its_turn_comes(harness: SendingHarness) -> None:
    (uid,) = await harness.bulk(1)
    long_ago = utc_now() - timedelta(seconds=SCHEDULE.timeout + 1)
    await harness._write(uid, last_update_at=long_ago, updated_at=long_ago)
    async with harness.working(4), asyncio.timeout(10):
        await harness.provider.until_called(1)
    row = await harness.tracking.task(uid)
    assert (row["submission"], row["error"]) == (Submission.ACCEPTED, None)


async def test_a_task_that_waits_longer_than_any_task_may_fails_unsent(harness: SendingHarness) -> None:
    (uid,) = await harness.bulk(1)
    await harness._write(uid, updated_at=utc_now() - timedelta(seconds=SCHEDULE.limit + 1))
    async with harness.working(4), asyncio.timeout(10):
        while (row := await harness.tracking.task(uid))["status"] != TaskStatus.FAILED:
            continue
    assert (row["error"]["code"], row["due_at"], harness.provider.inputs) == ("timed_out", None, [])
