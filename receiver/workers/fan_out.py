"""Writes the deliveries of organizations with many webhooks, piece by piece, of each organization at its own pace."""

import asyncio
import time
from contextlib import suppress

from receiver.domain.load_shares import Load, LoadShares
from receiver.errors import Unavailable
from receiver.events.fan_out import MOST_DELIVERIES, FanOutWriter, Progress
from receiver.events.pending_fan_outs import PendingFanOuts
from receiver.storage.database import Database
from receiver.storage.fan_outs import organizations_with_fan_outs
from receiver.telemetry.log import get_logger

log = get_logger("workers.fan_out")

_LOOK_SECONDS = 5.0
"""What is left to be written is looked for this often: the process that began it may have died."""
_PIECE_COST = 30.0
"""Of one piece, with what it costs later to claim and settle its deliveries (`receiver.domain.load_shares`)."""
_ELSEWHERE_SECONDS = 0.1
"""Before the next try where another process is writing."""


class FanOutWorker:
    """Has deliveries written while there are some, by the database's writer, in the turns of their organization."""

    def __init__(
        self, database: Database, writer: FanOutWriter, pending: PendingFanOuts, load_shares: LoadShares
    ) -> None:
        self._database = database
        self._writer = writer
        self._pending = pending
        self._load_shares = load_shares
        self._busy: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Write deliveries until cancelled."""
        try:
            while True:
                rows = await self._database.read(organizations_with_fan_outs())
                self._pending.wake(row["organization_id"] for row in rows)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._start_when_asked()
        finally:
            for task in self._busy.values():
                task.cancel()

    async def _start_when_asked(self) -> None:
        while True:
            await self._pending.asked.wait()
            self._pending.asked.clear()
            for organization_id in self._pending.waiting - self._busy.keys():
                self._busy[organization_id] = asyncio.create_task(self._write_all(organization_id))

    async def _write_all(self, organization_id: int) -> None:
        """Write deliveries of one organization until all are written."""
        waiting = self._pending.waiting
        try:
            progress = Progress.SOME_LEFT
            while progress is not Progress.ALL_WRITTEN or organization_id in waiting:
                use = self._load_shares.use(organization_id, Load.DELIVERIES)
                await asyncio.sleep(use.begin(time.monotonic(), _PIECE_COST))
                waiting.discard(organization_id)
                progress = await self._database.writer.write(
                    self._writer.write,
                    organization_id,
                    bounded=False,
                    until_known=True,
                    items=MOST_DELIVERIES,
                    organization=organization_id,
                )
                if progress is Progress.ELSEWHERE:
                    await asyncio.sleep(_ELSEWHERE_SECONDS)
        except Unavailable as error:
            log.warning("fan-out waits for the database", error_code=error.code, error=str(error))
        except Exception as error:  # it is found again, and others go on
            log.error("fan-out failed", exc_info=error)
        finally:
            del self._busy[organization_id]
