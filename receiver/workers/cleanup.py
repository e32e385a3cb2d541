"""Retention: what is older than it is kept goes, in small batches that leave the writer to others in between.

Idempotency keys have a time of their own, and go also where all else is kept.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from models import RUN_TERMINAL, TERMINAL
from receiver.clock import utc_now
from receiver.storage import purge
from receiver.storage.database import Database, Query
from receiver.storage.idempotency import KEPT
from receiver.storage.transaction import Transaction
from receiver.telemetry import get_logger

log = get_logger("workers.cleanup")

FIRST_SECONDS = 60.0
"""A start has better things to do first."""
EVERY_SECONDS = 3600.0
TASKS_AT_ONCE = 50
RUNS_AT_ONCE = 50
_ROWS_AT_ONCE = 200
_PAGE = 500

Purge = Callable[[Transaction, Sequence[int]], Awaitable[int]]
PurgeEnded = Callable[[Transaction, Sequence[int], datetime], Awaitable[int]]
Oldest = Callable[[int, int], Query]


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
        await asyncio.sleep(self._first)
        while True:
            gone = await self.clean(utc_now())
            if gone:
                log.info("purged", **gone)
            await asyncio.sleep(self._every)

    async def clean(self, now: datetime) -> dict[str, int]:
        """Purge what is too old; return how many of each kind went."""
        gone = await self._retained(now - self._retention) if self._retention else Counter[str]()
        before = now - KEPT
        gone["idempotency_keys"] = await self._all(
            lambda: purge.old_idempotency_keys(before, _ROWS_AT_ONCE),
            lambda tx, keys: purge.purge_idempotency_keys(tx, keys, before),
        )
        return {kind: count for kind, count in gone.items() if count}

    async def _retained(self, before: datetime) -> Counter[str]:
        # In this order: a run goes when its tasks are gone, and of the others each names the ones below it.
        gone = Counter(tasks=await self._walk(purge.oldest_tasks, before, purge.purge_tasks, TASKS_AT_ONCE))
        gone["runs"] = await self._walk(purge.oldest_runs, before, purge.purge_runs, RUNS_AT_ONCE)
        gone["events"] = await self._taskless_events(before)
        gone["receipts"] = await self._all(lambda: purge.old_receipts(before, _ROWS_AT_ONCE), purge.purge_receipts)
        gone["replays"] = await self._all(lambda: purge.old_replays(before, _ROWS_AT_ONCE), purge.purge_replays)
        gone["subscriptions"] = await self._all(
            lambda: purge.old_subscriptions(before, _ROWS_AT_ONCE), purge.purge_subscriptions
        )
        return gone

    async def _walk(self, oldest: Oldest, before: datetime, purge_them: PurgeEnded, at_once: int) -> int:
        """Purge what ended, walking from the oldest to the first that came too late to have ended too early.

        What was too old went last time, so the walk passes little but what goes now, and needs no index on ends.
        """
        gone = after = 0
        while page := await self._database.read(oldest(after, _PAGE)):
            after = page[-1]["id"]
            keys = [row["id"] for row in page if _is_over(row, before)]
            for start in range(0, len(keys), at_once):
                batch = keys[start : start + at_once]
                gone += await self._write(batch, lambda tx, keys: purge_them(tx, keys, before))
            if any(row["created_at"] >= before for row in page):
                break
        return gone

    async def _taskless_events(self, before: datetime) -> int:
        gone = after = 0
        while page := await self._database.read(purge.oldest_taskless_events(after, before, _ROWS_AT_ONCE)):
            after = page[-1]["id"]
            gone += await self._write([row["id"] for row in page], purge.purge_taskless_events)
        return gone

    async def _all(self, find: Callable[[], Query], purge_them: Purge) -> int:
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


def _is_over(row: dict[str, Any], before: datetime) -> bool:
    ended = row["status"] in TERMINAL or row["status"] in RUN_TERMINAL
    return ended and row["ended_at"] is not None and bool(row["ended_at"] < before)
