"""Measures how late the event loop and the writer are, while several organizations use them.

`receiver.domain.load_shares` says what for.
"""

import asyncio
import time

from receiver.domain.load_shares import LoadShares
from receiver.storage.writer import Writer
from receiver.telemetry.metrics import organizations_slowed

_INTERVAL = 0.02
_IDLE_SECONDS = 0.5
"""How often it is looked whether several organizations use the process."""


class LoadKeeper:
    """Measures the loop of this thread, and `writer`."""

    def __init__(self, shares: LoadShares, writer: Writer) -> None:
        self._shares = shares
        self._writer = writer

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            interval = _INTERVAL if self._shares.is_shared else _IDLE_SECONDS
            began, computed = time.monotonic(), time.thread_time()
            batches, seconds = self._writer.batches, self._writer.batch_seconds
            await asyncio.sleep(interval)
            now = time.monotonic()
            took = now - began
            self._shares.loop_measured(took - interval, (time.thread_time() - computed) / took)
            if (count := self._writer.batches - batches) > 0:
                self._shares.writer_measured((self._writer.batch_seconds - seconds) / count)
            self._shares.adjust(took, now)
            organizations_slowed.set(self._shares.slowed)
