"""The replayer: takes every replay on, a batch at a time, in turn; a restart goes on where it was."""

import asyncio
from contextlib import suppress

from receiver.outbound.replays import Replays
from receiver.telemetry import get_logger

log = get_logger("workers.replay")

_IDLE_SECONDS = 30.0
"""Nobody asked, but another process may have died over its replay."""
_FIRST_LOOK_SECONDS = 0.1
_LONGEST_LOOK_SECONDS = 2.0


class ReplayWorker:
    """Takes on what `replays` has to do. It is woken when there is more."""

    def __init__(self, replays: Replays) -> None:
        self._replays = replays

    async def run(self) -> None:
        """Take replays on for ever."""
        pause = _FIRST_LOOK_SECONDS
        while True:
            self._replays.asked.clear()
            running = await self._replays.running()
            moved = [await self._advance(replay) for replay in running]
            if any(moved):
                pause = _FIRST_LOOK_SECONDS
                continue
            # What is under way must be settled first: look again, ever later while it is not.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause if running else _IDLE_SECONDS):
                    await self._replays.asked.wait()
            pause = min(pause * 2, _LONGEST_LOOK_SECONDS) if running else _FIRST_LOOK_SECONDS

    async def _advance(self, replay: dict[str, object]) -> bool:
        try:
            return await self._replays.advance(replay)
        except Exception as error:
            log.error("a replay was not taken on", replay=replay["uid"], exc_info=error)
            return False
