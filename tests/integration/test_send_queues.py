"""Who is sent when, without HTTP: lines that take turns, intents, and tasks that are mentioned."""

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
from receiver.domain.keyring import KeyRing
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import (
    Accepted,
    Cancelled,
    CancelOutcome,
    Errand,
    FetchOutcome,
    Lane,
    NewTask,
    NoAnswer,
    NotMade,
    SubmitOutcome,
)
from receiver.storage.tables import tasks
from receiver.tracking.cancel import Canceller
from receiver.tracking.create import TaskRequest
from receiver.tracking.poll import Looker
from receiver.tracking.submit import Outgoing, Submitter
from receiver.workers.task_worker import Attendant
from tests.integration.harness import LEASE, House, tracking


class Recording:
    """A provider that takes everything, and notes who came in which lane; `meanwhile` happens before its turn."""

    name = "piapi"

    def __init__(self) -> None:
        self.lanes: list[Lane | None] = []
        self.inputs: list[Any] = []
        self.pause = 0.0
        self.told = asyncio.Event()
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def submit(
        self, task: NewTask, *, lane: Lane | None = None, begin: Callable[[], Awaitable[bool]] | None = None
    ) -> SubmitOutcome:
        if self.meanwhile is not None:
            await self.meanwhile()
        if begin is not None and not await begin():
            return NotMade("not any more")
        self._note(lane)
        self.inputs.append(task.input)
        return Accepted(ProviderUpdate(source=Source.SUBMIT, status=None, provider_task_id=f"pt-{len(self.inputs)}"))

    async def fetch(self, provider_task_id: str, *, lane: Lane | None = None, **_: Any) -> FetchOutcome:
        self._note(lane)
        return NoAnswer("it is down")

    async def cancel(self, provider_task_id: str, *, lane: Lane | None = None) -> CancelOutcome:
        self._note(lane)
        return Cancelled("success")

    async def history(self, *, lane: Lane | None = None, **_: Any) -> list[dict[str, Any]] | None:
        self._note(lane)
        return []

    def paused_for(self) -> float:
        return self.pause

    def parse_webhook(self, body: bytes, *, attempt: int | None = None) -> ProviderUpdate:
        raise NotImplementedError

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        raise NotImplementedError

    def redact(self, body: bytes) -> str:
        raise NotImplementedError

    async def aclose(self) -> None:
        return

    def _note(self, lane: Lane | None) -> None:
        self.lanes.append(lane)
        self.told.set()

    async def hears(self, calls: int) -> None:
        """Wait until it was called so often."""
        async with asyncio.timeout(20):
            while len(self.lanes) < calls:
                self.told.clear()
                await self.told.wait()


class Office:
    """A house with a provider that takes everything, and what sends tasks to it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.provider = Recording()
        providers, keyring = {"piapi": self.provider}, KeyRing(["a-master-key-for-tests"])
        writer = house.database.writer
        self.submitter = Submitter(house.database, house.applier, providers, keyring, None, lease_seconds=LEASE)
        self.looker = Looker(house.database, house.applier, self.submitter, providers, keyring, unknown_seconds=600)
        self.canceller = Canceller(writer, house.applier, providers)

    async def bulk(self, count: int, organization_id: int = 1, **fields: Any) -> list[str]:
        """Create tasks together; return their ids."""
        requests = [request(organization_id, **fields) for _ in range(count)]
        created = await self.house.database.writer.write(self.house.creator.create_bulk, requests)
        return [each.uid for each in created]

    async def send(self, uid: str) -> SubmitOutcome:
        """Send a task that waits, as whoever claimed it would."""
        row = await self.house.task(uid)
        outgoing = Outgoing(
            uid=uid,
            organization_id=row["organization_id"],
            attempt=row["attempt"],
            model=row["model"],
            task_type=row["task_type"],
            input=row["input"],
            config=row["config"],
            submission=Submission(row["submission"]),
            tries=row["looks"],
        )
        return await self.submitter.send("piapi", outgoing)

    async def wait_to_be_sent(self, uid: str) -> None:
        """Have a task that was created alone wait as after a call that made nothing."""
        values = {"submission": Submission.WAITING, "due_at": utc_now(), "leased": False}
        await self._write(uid, **values)

    async def make_due(self, uid: str) -> None:
        await self._write(uid, due_at=utc_now())

    @asynccontextmanager
    async def attending(self, side_by_side: int) -> AsyncIterator[None]:
        """Attend to what is due meanwhile."""
        attendant = Attendant(
            self.house.database.writer,
            self.looker,
            self.house.applier.announcer.due,
            lease_seconds=LEASE,
            side_by_side=side_by_side,
        )
        running = asyncio.create_task(attendant.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await attendant.drain(0.5)

    async def _write(self, uid: str, **values: Any) -> None:
        change = update(tasks).where(tasks.c.uid == uid).values(values)
        await self.house.database.writer.run(lambda tx: tx.execute(change))


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
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    with capture_logs():
        async with tracking(tmp_path) as house:
            yield Office(house)


async def test_a_bulk_is_one_transaction(office: Office) -> None:
    uid = new_id()
    twice = [request(), request(uid=uid), request(uid=uid)]
    with pytest.raises(Exception, match=r"(?i)unique"):
        await office.house.database.writer.write(office.house.creator.create_bulk, twice)
    assert (await office.house.tasks(), await office.house.events()) == ([], [])


async def test_bulks_that_share_a_transaction_get_their_own_tasks(office: Office) -> None:
    one, two = await asyncio.gather(office.bulk(3), office.bulk(2, labels={"two": True}))
    assert [task["uid"] for task in await office.house.tasks() if not task["metadata"]] == one
    assert [task["uid"] for task in await office.house.tasks() if task["metadata"]] == two
    assert await office.house.types() == [EventType.TASK_CREATED] * 5


async def test_a_bulk_waits_its_turn_and_is_leased_to_nobody(office: Office) -> None:
    await office.bulk(3)
    rows = await office.house.tasks()
    assert {(row["submission"], row["leased"], row["submitted_at"]) for row in rows} == {("waiting", False, None)}
    assert [row["due_at"] for row in rows] == sorted({row["due_at"] for row in rows})


async def test_organizations_and_single_tasks_take_turns_with_a_bulk_that_came_first(office: Office) -> None:
    other = await office.house.organization("other")
    await office.bulk(6)
    await office.bulk(3, other)
    for _ in range(2):
        await office.wait_to_be_sent(await office.house.create())
    async with office.attending(side_by_side=1):
        await office.provider.hears(11)
    create, bulk, theirs = Lane(1, Errand.CREATE), Lane(1, Errand.BULK), Lane(other, Errand.BULK)
    assert office.provider.lanes == [create, bulk, theirs, create, bulk, theirs, bulk, theirs, bulk, bulk, bulk]


async def test_a_bulk_is_sent_in_its_order(office: Office) -> None:
    uids = await office.bulk(8)
    async with office.attending(side_by_side=1):
        await office.provider.hears(8)
    sent = sorted(await office.house.tasks(), key=lambda row: int(str(row["provider_task_id"]).removeprefix("pt-")))
    assert [row["uid"] for row in sent] == uids


async def test_looks_do_not_wait_for_what_is_to_be_sent(office: Office) -> None:
    (seen,) = await office.bulk(1)
    await office.send(seen)
    held = asyncio.Event()
    office.provider.meanwhile = held.wait
    await office.bulk(5)
    async with office.attending(side_by_side=1):
        await office.make_due(seen)
        await office.provider.hears(2)
        assert office.provider.lanes[1] == Lane(1, Errand.LOOK)
        held.set()


async def test_calls_that_hang_hold_up_none_of_the_others(office: Office) -> None:
    held, begun = asyncio.Event(), iter(range(26))

    async def hang() -> None:
        if next(begun) < 6:
            await held.wait()

    office.provider.meanwhile = hang
    await office.bulk(26)
    async with office.attending(side_by_side=20):
        await office.provider.hears(20)
        held.set()
        await office.provider.hears(26)


async def test_however_many_are_due_each_is_looked_at_once(office: Office) -> None:
    uids = await office.bulk(40)
    for uid in uids:
        await office.send(uid)
        await office.make_due(uid)
    async with office.attending(side_by_side=20):
        await office.provider.hears(80)
    assert office.provider.lanes[40:] == [Lane(1, Errand.LOOK)] * 40
    assert {row["looks"] for row in await office.house.tasks()} == {1}


async def test_a_look_at_a_task_that_is_not_there_asks_nobody(office: Office) -> None:
    await office.looker.look(new_id())
    assert office.provider.lanes == []


async def test_every_call_is_made_in_the_lane_of_its_errand(office: Office) -> None:
    uid = await office.house.create()
    await office.send(uid)
    await office.looker.look(uid)
    await office.canceller.cancel(await office.house.task(uid))
    lost = await office.house.create()
    await office.make_due(lost)
    async with office.attending(side_by_side=1):
        await office.provider.hears(4)
    errands = [Errand.CREATE, Errand.LOOK, Errand.CANCEL, Errand.LOOK]
    assert office.provider.lanes == [Lane(1, errand) for errand in errands]


async def test_nothing_is_claimed_to_be_sent_while_the_provider_wants_to_be_left_alone(office: Office) -> None:
    (seen,) = await office.bulk(1)
    await office.send(seen)
    await office.make_due(seen)
    office.provider.pause = 60.0
    await office.bulk(3)
    async with office.attending(side_by_side=8):
        await office.provider.hears(2)
        assert office.provider.lanes[1] == Lane(1, Errand.LOOK)
        assert not any(task["leased"] for task in await office.house.tasks() if task["submission"] == "waiting")
        office.provider.pause = 0.0
        await office.provider.hears(5)


async def test_that_a_task_is_being_sent_is_written_when_its_turn_has_come_and_not_before(office: Office) -> None:
    (uid,) = await office.bulk(1)
    before: list[Any] = []

    async def look() -> None:
        before.append((await office.house.task(uid))["submission"])

    office.provider.meanwhile = look
    assert isinstance(await office.send(uid), Accepted)
    row = await office.house.task(uid)
    assert before == [Submission.WAITING]
    assert (row["submission"], row["provider_task_id"]) == (Submission.ACCEPTED, "pt-1")
    assert row["submitted_at"] is not None


async def test_what_is_cancelled_while_it_waits_for_its_turn_is_not_sent(office: Office) -> None:
    (uid,) = await office.bulk(1)

    async def cancel() -> None:
        await office.canceller.cancel(await office.house.task(uid))

    office.provider.meanwhile = cancel
    assert isinstance(await office.send(uid), NotMade)
    assert office.provider.inputs == []
    assert (await office.house.task(uid))["status"] == TaskStatus.CANCELLED


async def test_of_two_who_hold_the_same_task_one_sends_it(office: Office) -> None:
    (uid,) = await office.bulk(1)
    outcomes = await asyncio.gather(office.send(uid), office.send(uid))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", "NotMade"]
    assert len(office.provider.inputs) == 1
    assert (await office.house.task(uid))["submission"] == Submission.ACCEPTED


async def test_who_stops_before_its_turn_leaves_the_task_to_be_sent_by_another(office: Office) -> None:
    (uid,) = await office.bulk(1)
    held = asyncio.Event()
    office.provider.meanwhile = held.wait
    async with office.attending(side_by_side=1):
        while not (await office.house.task(uid))["leased"]:
            pass
    # The attendant gave it back; it is known not to have been sent.
    row = await office.house.task(uid)
    assert (row["submission"], row["leased"]) == (Submission.WAITING, False)
    office.provider.meanwhile = None
    assert isinstance(await office.send(uid), Accepted)


async def test_a_mentioned_task_has_the_provider_s_id_there_and_ours_in_the_row(office: Office) -> None:
    (origin,) = await office.bulk(1)
    await office.send(origin)
    given = {"origin_task_id": origin, "parts": [{"of": origin}, new_id()]}
    (uid,) = await office.bulk(1, input=given)
    await office.send(uid)
    assert office.provider.inputs[1] == {"origin_task_id": "pt-1", "parts": [{"of": "pt-1"}, given["parts"][1]]}
    assert (await office.house.task(uid))["input"] == given


async def test_a_task_waits_for_one_that_it_mentions_and_is_sent_when_that_is_known(office: Office) -> None:
    (origin,) = await office.bulk(1)
    (uid,) = await office.bulk(1, input={"origin_task_id": origin})
    assert isinstance(await office.send(uid), NotMade)
    row = await office.house.task(uid)
    assert (row["status"], row["submission"], row["submitted_at"]) == (TaskStatus.QUEUED, Submission.WAITING, None)
    assert row["due_at"] > utc_now() - timedelta(seconds=1)
    assert office.provider.inputs == []
    await office.send(origin)
    await office.send(uid)
    assert office.provider.inputs[1] == {"origin_task_id": "pt-1"}


async def test_a_task_created_alone_waits_too_and_is_not_taken_for_one_that_may_have_been_sent(office: Office) -> None:
    (origin,) = await office.bulk(1)
    alone = request(input={"origin_task_id": origin})
    uid = (await office.house.database.writer.write(office.house.creator.create, alone)).uid
    await office.send(uid)
    assert (await office.house.task(uid))["submission"] == Submission.WAITING


@pytest.mark.parametrize("end", [TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_a_task_fails_if_one_that_it_mentions_ended_unknown_to_the_provider(
    office: Office, end: TaskStatus
) -> None:
    (origin, waiting) = await office.bulk(2)
    if end == TaskStatus.CANCELLED:
        await office.canceller.cancel(await office.house.task(origin))
    else:
        await office.house.hear(end, origin, provider_task_id=None, source=Source.SUBMIT)
    (uid,) = await office.bulk(1, input={"both": [waiting, origin]}, max_attempts=5)
    await office.send(uid)
    row = await office.house.task(uid)
    assert (row["status"], row["submission"], row["attempt"]) == (TaskStatus.FAILED, Submission.REFUSED, 1)
    assert row["error"]["code"] == "mentioned_task_unknown"
    assert origin in row["error"]["message"]
    assert end in row["error"]["message"]
    assert office.provider.inputs == []


async def test_a_task_that_ended_is_mentioned_by_its_provider_s_id_all_the_same(office: Office) -> None:
    (origin,) = await office.bulk(1)
    await office.send(origin)
    await office.house.hear(TaskStatus.FAILED, origin)
    (uid,) = await office.bulk(1, input={"origin_task_id": origin})
    await office.send(uid)
    assert office.provider.inputs[1] == {"origin_task_id": "pt-1"}


async def test_another_organization_s_task_is_none_of_ours(office: Office) -> None:
    (theirs,) = await office.bulk(1, await office.house.organization("other"))
    await office.send(theirs)
    (uid,) = await office.bulk(1, input={"origin_task_id": theirs})
    await office.send(uid)
    assert office.provider.inputs[1] == {"origin_task_id": theirs}
