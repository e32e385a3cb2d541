"""Carries out bulk actions in the background, after a restart from where they were.

Organizations do not wait for each other's providers: each has at most one batch under way in a process, and several
have theirs at the same time. Within an organization the action that was left alone the longest has the next turn.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from receiver.clock import utc_now
from receiver.errors import Unavailable
from receiver.telemetry.log import get_logger
from receiver.tracking.bulk_actions import BulkActions

log = get_logger("workers.bulk_action")

MOST_AT_ONCE = 8
"""Batches of different organizations."""
_IDLE_SECONDS = 30.0
"""Bulk actions are read this often even without a new one: another process may have created one, or died."""
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.1, 2.0
"""The shortest and the longest wait while one runs that is not due, or that another process acts on."""


class BulkActionWorker:
    """Carries out the bulk actions of `actions`, which wakes it when there is a new one."""

    def __init__(self, actions: BulkActions) -> None:
        self._actions = actions
        self._under_way: dict[int, asyncio.Task[None]] = {}
        """The batch of each organization that has one under way."""

    async def run(self) -> None:
        """Carry out bulk actions until cancelled; batches under way are then given back."""
        try:
            while True:
                self._actions.asked.clear()
                await self._pause(self._begin(await self._actions.running()))
        finally:
            batches = list(self._under_way.values())
            for batch in batches:
                batch.cancel()
            await asyncio.gather(*batches, return_exceptions=True)

    def _begin(self, running: list[dict[str, Any]]) -> float:
        """Begin a batch for each organization that has an action that is due; return how long to wait at most."""
        now, wait = utc_now(), _IDLE_SECONDS
        for action in running:
            owner, left = action["organization_id"], (action["due_at"] - now).total_seconds()
            if left > 0:
                wait = min(wait, max(_SHORTEST_SECONDS, min(left, _LONGEST_SECONDS)))
            if left > 0 or owner in self._under_way or len(self._under_way) >= MOST_AT_ONCE:
                continue  # the end of a batch wakes this loop
            batch = asyncio.create_task(self._advance(action))
            self._under_way[owner] = batch
            batch.add_done_callback(lambda _, owner=owner: self._ended(owner))  # type: ignore[misc]
        return wait

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._actions.asked.wait()

    async def _advance(self, action: Mapping[str, Any]) -> None:
        try:
            await self._actions.advance(action)
        except Unavailable as error:
            log.warning("bulk action waits for the database", bulk_action_id=action["uid"], error=error.message)
            await asyncio.sleep(_LONGEST_SECONDS)
        except Exception as error:
            log.error("bulk action failed", bulk_action_id=action["uid"], exc_info=error)
            await asyncio.sleep(_LONGEST_SECONDS)

    def _ended(self, owner: int) -> None:
        del self._under_way[owner]
        self._actions.asked.set()
