"""The attendant: claims due tasks and does what each needs, many side by side."""

import asyncio
from datetime import timedelta

from receiver.clock import utc_now
from receiver.storage.transaction import DueTask
from receiver.storage.writer import Writer
from receiver.telemetry import get_logger
from receiver.tracking.announce import Alarm
from receiver.tracking.look import Looker

log = get_logger("workers.attend")

SIDE_BY_SIDE = 64
_LOOK_SECONDS = 1.0


class Attendant:
    """Attends to due tasks, oldest first, at most `SIDE_BY_SIDE` at once."""

    def __init__(self, writer: Writer, looker: Looker, due: Alarm, *, lease_seconds: float) -> None:
        self._writer = writer
        self._looker = looker
        self._due = due
        self._lease = timedelta(seconds=lease_seconds)
        self._running: set[asyncio.Task[None]] = set()
        self._free = asyncio.Event()

    async def run(self) -> None:
        """Attend for ever."""
        while True:
            room = SIDE_BY_SIDE - len(self._running)
            if room == 0:
                self._free.clear()
                await self._free.wait()
                continue
            claiming = asyncio.ensure_future(self._claim(room))
            try:
                await asyncio.shield(claiming)
            finally:  # at a stop too: what was claimed to be sent is sent, or nobody would know that it was not
                claimed = await claiming
                self._begin(claimed)
            if len(claimed) < room:
                await self._due.wait(utc_now(), _LOOK_SECONDS)

    def _begin(self, claimed: list[DueTask]) -> None:
        for due in claimed:
            task = asyncio.create_task(self._attend(due))
            self._running.add(task)
            task.add_done_callback(self._finished)

    async def drain(self, seconds: float) -> None:
        """Finish what is under way, `seconds` at most; the leases of the rest run out by themselves."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def _claim(self, room: int) -> list[DueTask]:
        now = utc_now()
        return await self._writer.run(lambda tx: tx.claim_tasks(now, now + self._lease, room), bounded=False)

    async def _attend(self, due: DueTask) -> None:
        try:
            await self._looker.attend(due)
        except Exception as error:
            # Its lease runs out, and somebody looks again.
            log.error("a due task was not attended to", task=due.state.uid, exc_info=error)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free.set()
