"""Retention: what is older than it is kept goes, in small batches that leave the writer to others in between."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select

from models import TERMINAL
from receiver.clock import utc_now
from receiver.storage import purge
from receiver.storage.database import Database
from receiver.storage.transaction import Transaction
from receiver.telemetry import get_logger

log = get_logger("workers.cleanup")

FIRST_SECONDS = 60.0
"""A start has better things to do first."""
EVERY_SECONDS = 3600.0
TASKS_AT_ONCE = 50
_ROWS_AT_ONCE = 200
_PAGE = 500

Purge = Callable[[Transaction, Sequence[int]], Awaitable[int]]


class Cleaner:
    """Purges what is older than `retention_days` (0 keeps all): a little after the start, then every so often."""

    def __init__(
        self,
        database: Database,
        *,
        retention_days: int,
        first_seconds: float = FIRST_SECONDS,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days)
        self._first = first_seconds
        self._every = every_seconds

    async def run(self) -> None:
        """Clean up for ever."""
        if not self._retention:
            await asyncio.Event().wait()  # there is nothing to do for ever
        await asyncio.sleep(self._first)
        while True:
            gone = await self.clean(utc_now())
            if gone:
                log.info("purged", **gone)
            await asyncio.sleep(self._every)

    async def clean(self, now: datetime) -> dict[str, int]:
        """Purge what is too old; return how many of each kind went."""
        before = now - self._retention
        gone = Counter(tasks=await self._tasks(before), events=await self._taskless_events(before))
        # In this order: each names the ones below it.
        gone["receipts"] = await self._all(lambda: purge.old_receipts(before, _ROWS_AT_ONCE), purge.purge_receipts)
        gone["replays"] = await self._all(lambda: purge.old_replays(before, _ROWS_AT_ONCE), purge.purge_replays)
        gone["subscriptions"] = await self._all(
            lambda: purge.old_subscriptions(before, _ROWS_AT_ONCE), purge.purge_subscriptions
        )
        return {kind: count for kind, count in gone.items() if count}

    async def _tasks(self, before: datetime) -> int:
        """Purge tasks, walking from the oldest to the first that came too late to have ended too early.

        What was too old went last time, so the walk passes little but what goes now, and needs no index on ends.
        """
        gone = after = 0
        while page := await self._database.read(purge.oldest_tasks(after, _PAGE)):
            after = page[-1]["id"]
            keys = [row["id"] for row in page if _is_over(row, before)]
            for start in range(0, len(keys), TASKS_AT_ONCE):
                gone += await self._write(keys[start : start + TASKS_AT_ONCE], _purge_tasks(before))
            if any(row["created_at"] >= before for row in page):
                break
        return gone

    async def _taskless_events(self, before: datetime) -> int:
        gone = after = 0
        while page := await self._database.read(purge.oldest_taskless_events(after, before, _ROWS_AT_ONCE)):
            after = page[-1]["id"]
            gone += await self._write([row["id"] for row in page], purge.purge_taskless_events)
        return gone

    async def _all(self, find: Callable[[], Select[Any]], purge_them: Purge) -> int:
        gone = 0
        while rows := await self._database.read(find()):
            went = await self._write([row["id"] for row in rows], purge_them)
            gone += went
            if not went:  # somebody named them just now
                break
        return gone

    async def _write(self, keys: Sequence[int], purge_them: Purge) -> int:
        """Run one batch, and leave the writer to the others for as long as that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        gone = await self._database.writer.run(lambda tx: purge_them(tx, keys), bounded=False)
        await asyncio.sleep(loop.time() - began)
        return gone


def _is_over(task: dict[str, Any], before: datetime) -> bool:
    return task["status"] in TERMINAL and task["ended_at"] is not None and bool(task["ended_at"] < before)


def _purge_tasks(before: datetime) -> Purge:
    return lambda tx, keys: purge.purge_tasks(tx, keys, before)
