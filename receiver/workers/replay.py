"""Advances replays in the background, after a restart from where they were.

Organizations take turns, one batch each, whether one has one replay or many; within an organization its replays do.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from receiver.outbound.replays import Replays
from receiver.telemetry.log import get_logger

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
        self._last: dict[int, int] = {}
        """For each organization with replays, the row key of the one that had the last turn."""

    async def run(self) -> None:
        """Advance replays until cancelled."""
        pause = _FIRST_WAIT_SECONDS
        while True:
            self._replays.asked.clear()
            running = await self._replays.running()
            queues = self._queues(running)
            self._last = {key: self._last[key] for key in queues if key in self._last}
            advanced = [await self._advance_one(queue) for queue in queues.values()]
            if any(advanced):
                pause = _FIRST_WAIT_SECONDS
                continue
            # The deliveries of the last batch have to be settled first: try again, after doubling waits.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause if running else _IDLE_SECONDS):
                    await self._replays.asked.wait()
            pause = min(pause * 2, _LONGEST_WAIT_SECONDS) if running else _FIRST_WAIT_SECONDS

    def _queues(self, running: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
        """Return the replays of each organization in the order of their turns: first those behind the last one."""
        queues: dict[int, list[Mapping[str, Any]]] = {}
        for replay in running:
            queues.setdefault(replay["organization_id"], []).append(replay)
        for key, queue in queues.items():
            last = self._last.get(key, 0)
            queue[:] = [each for each in queue if each["id"] > last] + [each for each in queue if each["id"] <= last]
        return queues

    async def _advance_one(self, queue: Sequence[Mapping[str, Any]]) -> bool:
        """Queue a batch of the first of an organization's replays that may send one; return whether one did."""
        for replay in queue:
            self._last[replay["organization_id"]] = replay["id"]
            if await self._advance(replay):
                return True
        return False

    async def _advance(self, replay: Mapping[str, Any]) -> bool:
        try:
            return await self._replays.advance(replay)
        except Exception as error:
            log.error("replay failed", replay_id=replay["uid"], exc_info=error)
            return False
