"""The attendant: claims due tasks and does what each needs, many side by side."""

import asyncio
from datetime import timedelta

from receiver.clock import utc_now
from receiver.errors import Unavailable
from receiver.events.after_commit import WakeTimer
from receiver.storage.leases import give_back_tasks
from receiver.storage.transaction import DueTask, SendQueue, Transaction
from receiver.storage.writer import Writer
from receiver.telemetry import get_logger
from receiver.tracking.poll import Poller

log = get_logger("workers.task_worker")

SIDE_BY_SIDE = 80
_BATCH = 16
"""How many places must be free before what is left over is claimed: one by one, each claim costs as much as all."""
_POLL_SECONDS = 1.0
_FIRST_QUEUE: SendQueue = (0, False)


class _Slots:
    """The places for what is under way of one kind."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._batch = min(_BATCH, count)
        self.taken = 0
        self.may_be_more = False
        """Whether as many were claimed as there was room for."""

    @property
    def free(self) -> int:
        return self._count - self.taken

    @property
    def want_more(self) -> bool:
        return self.may_be_more and self.free >= self._batch


class TaskWorker:
    """Attends to due tasks: sends what waits for that, and looks at what was sent; neither waits for the other.

    At most `side_by_side` of each at once. The oldest is looked at first; of those that are to be sent, the lines in
    which they stand take turns.
    """

    def __init__(
        self, writer: Writer, poller: Poller, due: WakeTimer, *, lease_seconds: float, side_by_side: int = SIDE_BY_SIDE
    ) -> None:
        self._writer = writer
        self._poller = poller
        self._due = due
        self._lease = timedelta(seconds=lease_seconds)
        self._running: dict[asyncio.Task[None], DueTask] = {}
        self._polls = _Slots(side_by_side)
        self._unsent = _Slots(side_by_side)
        self._last_queue = _FIRST_QUEUE

    async def run(self) -> None:
        """Attend for ever."""
        while True:
            await self._take_on()
            if not (self._polls.want_more or self._unsent.want_more):
                await self._due.wait(utc_now(), _POLL_SECONDS)

    async def _take_on(self) -> None:
        """Claim as much as there are places for, and begin with it."""
        may_send = self._poller.may_send()
        polls, unsent = self._polls.free, self._unsent.free if may_send else 0
        # Who finishes meanwhile asks for no further claim: this one's result says whether it is worth while.
        self._polls.may_be_more = self._unsent.may_be_more = False
        claiming = asyncio.ensure_future(self._claim(polls, unsent))
        try:
            await asyncio.shield(claiming)
        finally:  # at a stop too: what was claimed is done, or given back
            claimed = await claiming
            self._begin(claimed)
        of_queues = sum(due.queue is not None for due in claimed)
        self._polls.may_be_more = len(claimed) - of_queues == polls
        self._unsent.may_be_more = may_send and of_queues == unsent

    def _begin(self, claimed: list[DueTask]) -> None:
        for due in claimed:
            self._slots_for(due).taken += 1
            if due.queue is not None:
                self._last_queue = due.queue
            task = asyncio.create_task(self._run_one(due))
            self._running[task] = due
            task.add_done_callback(self._finished)

    def _slots_for(self, due: DueTask) -> _Slots:
        return self._polls if due.queue is None else self._unsent

    async def drain(self, seconds: float) -> None:
        """Finish what is under way, `seconds` at most, and give back what is only looked at."""
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=seconds)
        keys = [self._running[task].state.id for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if keys:
            try:
                await self._writer.run(lambda tx: give_back_tasks(tx, keys, utc_now()), bounded=False)
            except Unavailable as error:
                log.error("leases were not given back, and run out", tasks=len(keys), error=error.message)

    async def _claim(self, polls: int, unsent: int) -> list[DueTask]:
        now = utc_now()
        until = now + self._lease

        async def work(tx: Transaction) -> list[DueTask]:
            found = await tx.claim_polls(now, until, polls) if polls else []
            return found + (await tx.claim_unsent(now, until, unsent, self._last_queue) if unsent else [])

        return await self._writer.run(work, bounded=False) if polls or unsent else []

    async def _run_one(self, due: DueTask) -> None:
        try:
            await self._poller.attend(due)
        except Exception as error:
            # Its lease runs out, and somebody looks again.
            log.error("a due task was not attended to", task=due.state.uid, exc_info=error)

    def _finished(self, task: asyncio.Task[None]) -> None:
        slots = self._slots_for(self._running.pop(task))
        slots.taken -= 1
        if slots.want_more:
            self._due.set(utc_now())
