"""Advances replays in the background, one batch of each in turn; after a restart they continue where they were."""

import asyncio
from contextlib import suppress

from receiver.outbound.replays import Replays
from receiver.telemetry import get_logger

log = get_logger("workers.replay")

_IDLE_SECONDS = 30.0
"""Replays are read this often even without a new one: the process that advanced one may have died."""
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
"""While the deliveries of the last batch are pending: the first wait before the next try, and the longest."""


class ReplayWorker:
    """Advances the replays of `replays`, which wakes it when there is a new one."""

    def __init__(self, replays: Replays) -> None:
        self._replays = replays

    async def run(self) -> None:
        """Advance replays until cancelled."""
        pause = _FIRST_WAIT_SECONDS
        while True:
            self._replays.asked.clear()
            running = await self._replays.running()
            advanced = [await self._advance(replay) for replay in running]
            if any(advanced):
                pause = _FIRST_WAIT_SECONDS
                continue
            # The deliveries of the last batch have to be settled first: try again, after doubling waits.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause if running else _IDLE_SECONDS):
                    await self._replays.asked.wait()
            pause = min(pause * 2, _LONGEST_WAIT_SECONDS) if running else _FIRST_WAIT_SECONDS

    async def _advance(self, replay: dict[str, object]) -> bool:
        try:
            return await self._replays.advance(replay)
        except Exception as error:
            log.error("replay failed", replay_id=replay["uid"], exc_info=error)
            return False
