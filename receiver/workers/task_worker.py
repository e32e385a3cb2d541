"""The attendant: claims due tasks and does what each needs, many side by side."""

import asyncio
from datetime import timedelta

from receiver.clock import utc_now
from receiver.errors import Unavailable
from receiver.events.after_commit import Alarm
from receiver.storage.leases import give_back_tasks
from receiver.storage.transaction import DueTask, Line, Transaction
from receiver.storage.writer import Writer
from receiver.telemetry import get_logger
from receiver.tracking.poll import Looker

log = get_logger("workers.attend")

SIDE_BY_SIDE = 80
_ROOM = 16
"""How many places must be free before what is left over is claimed: one by one, each claim costs as much as all."""
_LOOK_SECONDS = 1.0
_FIRST_LINE: Line = (0, False)


class _Places:
    """The places for what is under way of one kind."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._room = min(_ROOM, count)
        self.taken = 0
        self.may_be_more = False
        """Whether as many were claimed as there was room for."""

    @property
    def free(self) -> int:
        return self._count - self.taken

    @property
    def want_more(self) -> bool:
        return self.may_be_more and self.free >= self._room


class Attendant:
    """Attends to due tasks: sends what waits for that, and looks at what was sent; neither waits for the other.

    At most `side_by_side` of each at once. The oldest is looked at first; of those that are to be sent, the lines in
    which they stand take turns.
    """

    def __init__(
        self, writer: Writer, looker: Looker, due: Alarm, *, lease_seconds: float, side_by_side: int = SIDE_BY_SIDE
    ) -> None:
        self._writer = writer
        self._looker = looker
        self._due = due
        self._lease = timedelta(seconds=lease_seconds)
        self._running: dict[asyncio.Task[None], DueTask] = {}
        self._looks = _Places(side_by_side)
        self._unsent = _Places(side_by_side)
        self._last_line = _FIRST_LINE

    async def run(self) -> None:
        """Attend for ever."""
        while True:
            await self._take_on()
            if not (self._looks.want_more or self._unsent.want_more):
                await self._due.wait(utc_now(), _LOOK_SECONDS)

    async def _take_on(self) -> None:
        """Claim as much as there are places for, and begin with it."""
        may_send = self._looker.may_send()
        looks, unsent = self._looks.free, self._unsent.free if may_send else 0
        # Who finishes meanwhile asks for no further claim: this one's result says whether it is worth while.
        self._looks.may_be_more = self._unsent.may_be_more = False
        claiming = asyncio.ensure_future(self._claim(looks, unsent))
        try:
            await asyncio.shield(claiming)
        finally:  # at a stop too: what was claimed is done, or given back
            claimed = await claiming
            self._begin(claimed)
        of_lines = sum(due.line is not None for due in claimed)
        self._looks.may_be_more = len(claimed) - of_lines == looks
        self._unsent.may_be_more = may_send and of_lines == unsent

    def _begin(self, claimed: list[DueTask]) -> None:
        for due in claimed:
            self._places(due).taken += 1
            if due.line is not None:
                self._last_line = due.line
            task = asyncio.create_task(self._attend(due))
            self._running[task] = due
            task.add_done_callback(self._finished)

    def _places(self, due: DueTask) -> _Places:
        return self._looks if due.line is None else self._unsent

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

    async def _claim(self, looks: int, unsent: int) -> list[DueTask]:
        now = utc_now()
        until = now + self._lease

        async def work(tx: Transaction) -> list[DueTask]:
            found = await tx.claim_looks(now, until, looks) if looks else []
            return found + (await tx.claim_unsent(now, until, unsent, self._last_line) if unsent else [])

        return await self._writer.run(work, bounded=False) if looks or unsent else []

    async def _attend(self, due: DueTask) -> None:
        try:
            await self._looker.attend(due)
        except Exception as error:
            # Its lease runs out, and somebody looks again.
            log.error("a due task was not attended to", task=due.state.uid, exc_info=error)

    def _finished(self, task: asyncio.Task[None]) -> None:
        places = self._places(self._running.pop(task))
        places.taken -= 1
        if places.want_more:
            self._due.set(utc_now())
