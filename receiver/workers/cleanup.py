"""Retention: purges old rows, in small batches with pauses in between, so that other writes are hardly delayed.

Idempotency keys have their own, shorter retention, and are purged even where `RINGBACK_RETENTION_DAYS` is 0; entries of
the audit log have a longer one (`RINGBACK_AUDIT_DAYS`).

What is purged is gone, so a clock that was set a year ahead may not decide it. The time is trusted when the service's
clock was not set for a day, or when rows show that it was a day earlier a day ago (`Cleaner.is_time_trusted`). Else
nothing is purged until one of these is so: for a day after a start that follows a stop or an idle time of a day.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import Any

from models import RUN_TERMINAL, TERMINAL, StatisticStep
from receiver.clock import SERVICE_CLOCK, AnchoredClock, utc_now
from receiver.storage import purge
from receiver.storage.audit import old_audit_entries, purge_audit_entries
from receiver.storage.database import Database, Query
from receiver.storage.idempotency import KEPT
from receiver.storage.receipts import find_owners, receipts_without_owner
from receiver.storage.statistics.sums import MINUTES_KEPT, STATISTICS, lower_position, oldest_sums, purge_sums
from receiver.storage.system import forget_conditions
from receiver.storage.transaction import Transaction
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, last_purge, purged_rows

log = get_logger("workers.cleanup")

FIRST_SECONDS = 60.0
"""The first clean-up waits this long, so that it does not slow the start."""
EVERY_SECONDS = 3600.0
_TRUSTED_AFTER = timedelta(days=1)
TASKS_AT_ONCE = 50
RUNS_AT_ONCE = 50
_ROWS_AT_ONCE = 200
_PAGE = 500
_LONGEST_STEP = timedelta(days=1)
"""The sums of a day are kept until all of it is older than the retention."""

Purge = Callable[[Transaction, Sequence[int]], Awaitable[int]]
PurgeEnded = Callable[[Transaction, Sequence[int], datetime], Awaitable[int]]
Oldest = Callable[[int, int], Query]


class Cleaner:
    """Purges rows older than `retention_days` (0 keeps all): `first_seconds` after the start, then at intervals.

    Entries of the audit log are kept for `audit_days` (0 keeps all).
    """

    def __init__(
        self,
        database: Database,
        *,
        retention_days: int,
        audit_days: int = 0,
        first_seconds: float = FIRST_SECONDS,
        every_seconds: float = EVERY_SECONDS,
        clock: AnchoredClock = SERVICE_CLOCK,
    ) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days)
        self._audit = timedelta(days=audit_days)
        self._first = first_seconds
        self._every = every_seconds
        self._clock = clock

    async def run(self) -> None:
        """Clean up at intervals until cancelled."""
        await asyncio.sleep(self._first)
        while True:
            now = utc_now()
            if self._database.shared is not None:  # by the database's own clock: these rows mean nothing after seconds
                await self._database.shared.limits.purge()
            if await self.is_time_trusted(now):
                if purged := await self.clean(now):
                    log.info("purged", **purged)
            else:
                log.info("nothing purged yet", reason="no event shows that the clock was right a day ago")
            await self._keep_partitions()
            await self.find_receipt_owners()
            await asyncio.sleep(self._every)

    async def is_time_trusted(self, now: datetime) -> bool:
        """Return whether `now` may decide what is too old: the clock was not set for a day, or events are as old."""
        if self._clock.steady_seconds() >= _TRUSTED_AFTER.total_seconds():
            return True
        day_ago = now - _TRUSTED_AFTER
        return bool(await self._database.read(purge.an_event_between(day_ago - _TRUSTED_AFTER, day_ago)))

    async def clean(self, now: datetime) -> dict[str, int]:
        """Purge what is too old; return how many rows of each kind were purged, without zeros."""
        purged = await self._retained(now - self._retention) if self._retention else Counter[str]()
        before = now - KEPT
        purged["idempotency_keys"] = await self._all(
            lambda: purge.old_idempotency_keys(before, _ROWS_AT_ONCE),
            lambda tx, keys: purge.purge_idempotency_keys(tx, keys, before),
        )
        if self._audit:
            purged["audit_entries"] = await self._all(
                lambda: old_audit_entries(now - self._audit, _ROWS_AT_ONCE), purge_audit_entries
            )
        purged["statistics"] = await self._sums(now)
        for kind, count in purged.items():
            counted(purged_rows, kind).inc(count)
        last_purge.set(now.timestamp())
        return {kind: count for kind, count in purged.items() if count}

    async def find_receipt_owners(self) -> int:
        """Write down whose the receipts of earlier versions are; return of how many it was found."""
        found, after = 0, None
        while page := await self._database.read(receipts_without_owner(after, _PAGE)):
            after = page[-1]["received_at"], page[-1]["id"]
            found += await self._write([row["id"] for row in page], find_owners)
        return found

    async def _keep_partitions(self) -> None:
        """Make the next partitions before they are needed, whatever the clock says, and drop what a purge emptied."""
        if self._database.shared is not None:
            await self._database.shared.keep_partitions(self._retention)

    async def _retained(self, before: datetime) -> Counter[str]:
        # In this order: a run is purged after its tasks, and of the others each references those after it.
        purged = Counter(tasks=await self._walk(purge.oldest_tasks, before, purge.purge_tasks, TASKS_AT_ONCE))
        purged["runs"] = await self._walk(purge.oldest_runs, before, purge.purge_runs, RUNS_AT_ONCE)
        purged["events"] = await self._taskless_events(before)
        purged["system_conditions"] = await self._database.writer.run(
            lambda tx: forget_conditions(tx, before), bounded=False
        )
        purged["receipts"] = await self._all(lambda: purge.old_receipts(before, _ROWS_AT_ONCE), purge.purge_receipts)
        purged["replays"] = await self._all(lambda: purge.old_replays(before, _ROWS_AT_ONCE), purge.purge_replays)
        purged["bulk_actions"] = await self._all(
            lambda: purge.old_bulk_actions(before, _ROWS_AT_ONCE), purge.purge_bulk_actions
        )
        purged["subscriptions"] = await self._all(
            lambda: purge.old_subscriptions(before, _ROWS_AT_ONCE), purge.purge_subscriptions
        )
        return purged

    async def _sums(self, now: datetime) -> int:
        """Purge the sums of minutes, and of hours and days as old as all other rows that are purged."""
        befores = {StatisticStep.MINUTE: now - MINUTES_KEPT}
        if self._retention:
            befores |= dict.fromkeys((StatisticStep.HOUR, StatisticStep.DAY), now - self._retention - _LONGEST_STEP)
        purged = 0
        for (step, before), table in product(befores.items(), STATISTICS):
            while (at := (await self._database.read(oldest_sums(table, step, before)))[0]["at"]) is not None:
                purged += await self._database.writer.run(
                    partial(purge_sums, table=table, step=step, at=at), bounded=False
                )
        return purged

    async def _walk(self, oldest: Oldest, before: datetime, purge_them: PurgeEnded, at_once: int) -> int:
        """Purge rows that ended before `before`, from the oldest to the first that was created later than that.

        Older rows were purged by earlier calls, so few rows are read that stay, and no index on `ended_at` is needed.
        """
        purged = after = 0
        while page := await self._database.read(oldest(after, _PAGE)):
            after = page[-1]["id"]
            keys = [row["id"] for row in page if _is_over(row, before)]
            for start in range(0, len(keys), at_once):
                batch = keys[start : start + at_once]
                purged += await self._write(batch, lambda tx, keys: purge_them(tx, keys, before))
            if any(row["created_at"] >= before for row in page):
                break
        return purged

    async def _taskless_events(self, before: datetime) -> int:
        purged = after = 0
        while page := await self._database.read(purge.oldest_taskless_events(after, before, _ROWS_AT_ONCE)):
            after = page[-1]["id"]
            purged += await self._write([row["id"] for row in page], purge.purge_taskless_events)
        return purged

    async def _all(self, find: Callable[[], Query], purge_them: Purge) -> int:
        purged = 0
        while rows := await self._database.read(find()):
            count = await self._write([row["id"] for row in rows], purge_them)
            purged += count
            if not count:  # other rows have begun to reference them
                break
        return purged

    async def _write(self, keys: Sequence[int], purge_them: Purge) -> int:
        """Purge one batch, then pause for as long as that took, so that other writes get their turn."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        purged = await self._database.writer.run(lambda tx: self._purge(tx, keys, purge_them), bounded=False)
        await asyncio.sleep(loop.time() - began)
        return purged

    async def _purge(self, tx: Transaction, keys: Sequence[int], purge_them: Purge) -> int:
        purged = await purge_them(tx, keys)
        if self._database.shared is None:
            await lower_position(tx)
        return purged


def _is_over(row: dict[str, Any], before: datetime) -> bool:
    ended = row["status"] in TERMINAL or row["status"] in RUN_TERMINAL
    return ended and row["ended_at"] is not None and bool(row["ended_at"] < before)
