"""How many tasks the worker has in hand: those whose provider is called, and those that wait to be stored."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from models import Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.task_state import TaskState
from receiver.events.after_commit import WakeTimer
from receiver.storage.transaction import ClaimedTasks, DueTask, TaskClaim
from receiver.storage.writer import Writer
from receiver.tracking.poll import Poller
from receiver.workers.task_worker import TaskWorker, _Slots

CALLS = 20


class Table:
    """The writer and a transaction of it at once: it has as many due tasks as are asked for."""

    def __init__(self) -> None:
        self.claimed = 0

    async def write(self, handler: Callable[..., Awaitable[list[Any]]], claim: TaskClaim, **_: Any) -> Any:
        (claimed,) = await handler(self, [claim])
        return claimed

    async def claim_tasks(self, claim: TaskClaim) -> ClaimedTasks:
        first, self.claimed = self.claimed, self.claimed + claim.polls
        found = [DueTask(_state(key), None) for key in range(first, self.claimed)]
        return ClaimedTasks(found, may_be_more_polls=True)


class Hanging:
    """A poller whose calls are answered, and then stored, when that is said."""

    def __init__(self) -> None:
        self.calls = self.stored = 0
        self._answers: asyncio.Queue[None] = asyncio.Queue()
        self._commits: asyncio.Queue[None] = asyncio.Queue()

    def may_send(self) -> bool:
        return True

    async def act_on(self, due: DueTask, answered: Callable[[], None]) -> None:
        self.calls += 1
        await self._answers.get()
        answered()
        await self._commits.get()
        self.stored += 1

    def answer(self, count: int) -> None:
        for _ in range(count):
            self._answers.put_nowait(None)

    def store(self, count: int) -> None:
        for _ in range(count):
            self._commits.put_nowait(None)


@pytest.fixture
async def poller() -> AsyncIterator[Hanging]:
    poller = Hanging()
    worker = TaskWorker(cast(Writer, Table()), cast(Poller, poller), WakeTimer(), lease_seconds=60.0, concurrency=CALLS)
    running = asyncio.create_task(worker.run())
    await settled(poller)
    yield poller
    running.cancel()
    poller.answer(10 * CALLS)
    poller.store(10 * CALLS)
    await asyncio.gather(running, return_exceptions=True)
    await worker.drain(1.0)


async def test_no_more_calls_are_made_at_a_time_than_there_may_be(poller: Hanging) -> None:
    assert poller.calls == CALLS


async def test_the_next_calls_do_not_wait_until_what_was_answered_is_stored(poller: Hanging) -> None:
    poller.answer(CALLS)
    await settled(poller)
    assert (poller.calls, poller.stored) == (2 * CALLS, 0)


async def test_no_more_answers_wait_to_be_stored_than_calls_may_be_made(poller: Hanging) -> None:
    poller.answer(10 * CALLS)
    await settled(poller)
    assert (poller.calls, poller.stored) == (2 * CALLS, 0)
    poller.store(CALLS)
    await settled(poller)
    assert (poller.calls, poller.stored) == (3 * CALLS, CALLS)


def test_a_claim_that_became_known_late_leaves_no_fewer_than_no_places() -> None:
    slots = _Slots(CALLS)
    slots.calls = CALLS + 3
    assert (slots.free, slots.wants_claim) == (0, False)


async def settled(poller: Hanging) -> None:
    """Return when nothing more happens by itself."""
    still = 0
    while still < 20:
        before = (poller.calls, poller.stored)
        await asyncio.sleep(0)
        still = still + 1 if before == (poller.calls, poller.stored) else 0


def _state(key: int) -> TaskState:
    now = utc_now()
    return TaskState(
        id=key,
        uid=f"task-{key}",
        organization_id=1,
        status=TaskStatus.PENDING,
        submission=Submission.ACCEPTED,
        attempt=1,
        max_attempts=1,
        backoff_seconds=1.0,
        provider_task_id=f"p{key}",
        progress=0,
        revision="",
        words=None,
        callback_id=None,
        ended_event=None,
        poll_count=0,
        last_update_at=now,
    )
