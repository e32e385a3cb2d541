"""The task worker: claims due tasks and acts on each, many concurrently."""

import asyncio
from datetime import datetime, timedelta

from receiver.clock import utc_now
from receiver.errors import OutcomeUnknown, Unavailable
from receiver.events.after_commit import WakeTimer
from receiver.storage.leases import claim_tasks, give_back_tasks
from receiver.storage.transaction import FIRST_QUEUE, ClaimedTasks, DueTask, TaskClaim
from receiver.storage.writer import Writer
from receiver.telemetry.log import get_logger
from receiver.tracking.poll import Poller

log = get_logger("workers.task_worker")

CONCURRENCY = 80
_MIN_CLAIM = 16
"""While more tasks are due, a claim waits until this many slots are free: a claim of 1 costs as much as one of 16."""
_CLAIM_SECONDS = 1.0
"""Due tasks are claimed this often even when nothing wakes the worker: another process may have died."""


class _Slots:
    """Counts the tasks of one kind that are being acted on.

    `calls` are those whose provider has not answered yet, at most `count`. The others wait only for what was answered
    to be stored, and both together are at most twice as many: the next calls need not wait for a commit.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._min_claim = min(_MIN_CLAIM, count)
        self.calls = 0
        self.answered = 0
        self.may_be_more = False
        """Whether the last claim filled all free slots: then more tasks may be due."""

    @property
    def free(self) -> int:
        """How many more may be claimed: none also while a claim that became known late has added too many."""
        return max(0, min(self._count, 2 * self._count - self.answered) - self.calls)

    @property
    def wants_claim(self) -> bool:
        return self.may_be_more and self.free >= self._min_claim


class _InHand:
    """A claimed task, until it was acted on: it takes one of the `slots`."""

    __slots__ = ("_is_answered", "_slots", "_timer", "due")

    def __init__(self, due: DueTask, slots: _Slots, timer: WakeTimer) -> None:
        self.due = due
        self._slots = slots
        self._timer = timer
        self._is_answered = False
        slots.calls += 1

    def answered(self) -> None:
        """Take note that its provider has answered: another one may be called."""
        self._is_answered = True
        self._slots.calls -= 1
        self._slots.answered += 1
        self._freed()

    def finished(self) -> None:
        """Take note that it was acted on."""
        if self._is_answered:
            self._slots.answered -= 1
        else:
            self._slots.calls -= 1
        self._freed()

    def _freed(self) -> None:
        if self._slots.wants_claim:
            self._timer.set(utc_now())


class TaskWorker:
    """Acts on due tasks: sends those that wait to be sent, polls or searches for the others.

    At most `concurrency` calls of each kind at a time, and neither kind waits for the other. Polls are claimed as
    many of each organization, tasks to be sent from their send queues in turn: many of one delay no other's.
    """

    def __init__(
        self, writer: Writer, poller: Poller, due: WakeTimer, *, lease_seconds: float, concurrency: int = CONCURRENCY
    ) -> None:
        self._writer = writer
        self._poller = poller
        self._due = due
        self._lease = timedelta(seconds=lease_seconds)
        self._running: dict[asyncio.Task[None], _InHand] = {}
        self._polls = _Slots(concurrency)
        self._unsent = _Slots(concurrency)
        self._last_polled = 0
        """The organization that was polled for last; 0 is before the first."""
        self._last_queue = FIRST_QUEUE

    async def run(self) -> None:
        """Claim due tasks and act on them until cancelled."""
        while True:
            await self._claim_and_start()
            if not (self._polls.wants_claim or self._unsent.wants_claim):
                await self._due.wait(utc_now(), _CLAIM_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Finish the tasks in progress, `seconds` at most; cancel the rest and end their leases.

        The lease of a task that is being sent is kept: whether the provider has it is not known.
        """
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=seconds)
        keys = [self._running[task].due.state.id for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if keys:
            try:
                await self._writer.run(lambda tx: give_back_tasks(tx, keys, utc_now()), bounded=False)
            except Unavailable as error:  # the leases run out by themselves
                log.error("ending leases failed", task_count=len(keys), error_code=error.code, error=error.message)

    async def _claim_and_start(self) -> None:
        """Claim as many due tasks as there are free slots, and start to act on them."""
        may_send = self._poller.may_send()
        polls, unsent = self._polls.free, self._unsent.free if may_send else 0
        # A task that finishes during this claim asks for no other: the result of this one says if another is needed.
        self._polls.may_be_more = self._unsent.may_be_more = False
        until = utc_now() + self._lease
        claiming = asyncio.ensure_future(self._claim(polls, unsent, until))
        try:
            await asyncio.shield(claiming)
        except OutcomeUnknown as unknown:  # what is not known to be ours is not acted on
            unknown.when_stored(lambda claimed: self._start_late(claimed.tasks, until))
            raise
        finally:  # when cancelled too: claimed tasks must be in `_running`, where `drain` finds them
            claimed = await claiming
            self._start(claimed.tasks)
        self._polls.may_be_more = claimed.may_be_more_polls
        self._unsent.may_be_more = may_send and claimed.may_be_more_unsent

    async def _claim(self, polls: int, unsent: int, until: datetime) -> ClaimedTasks:
        if not polls and not unsent:
            return ClaimedTasks([], may_be_more_polls=True, may_be_more_unsent=True)
        claim = TaskClaim(utc_now(), until, polls, self._last_polled, unsent, self._last_queue)
        return await self._writer.write(claim_tasks, claim, bounded=False)

    def _start(self, claimed: list[DueTask]) -> None:
        for due in claimed:
            if due.queue is None:
                self._last_polled = due.state.organization_id
            else:
                self._last_queue = due.queue
            in_hand = _InHand(due, self._polls if due.queue is None else self._unsent, self._due)
            task = asyncio.create_task(self._act_on(in_hand))
            self._running[task] = in_hand
            task.add_done_callback(self._finished)

    def _start_late(self, claimed: list[DueTask], until: datetime) -> None:
        """Start to act on tasks whose claim became known late, if half of their lease is left: it covers every call."""
        if utc_now() < until - self._lease / 2:
            self._start(claimed)

    async def _act_on(self, in_hand: _InHand) -> None:
        due = in_hand.due
        try:
            await self._poller.act_on(due, in_hand.answered)
        except Unavailable as error:  # the database's: its lease runs out, and it is claimed again
            log.warning("acting on task failed", task_id=due.state.uid, error_code=error.code, error=error.message)
        except Exception as error:
            await self._count_exception(due, error)

    async def _count_exception(self, due: DueTask, error: Exception) -> None:
        try:
            await self._poller.count_exception(due.state, error)
        except Exception as second:  # its lease runs out, and it is claimed again
            log.error("counting an exception failed", task_id=due.state.uid, exc_info=second)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task).finished()
