"""The sampler: reads at intervals what the metrics show of the database, the disk and this process.

Reading at a scrape would cost as much again for each program that scrapes. Of the workers on one machine that share a
folder for their metrics one reads the database, the one that holds a lock on a file there; each replica has its own.
A round that takes long is followed by a pause that is `_PAUSES` times as long, so the database works for it little.
"""

import asyncio
import fcntl
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Protocol

import orjson

from receiver.clock import utc_now, wall_now
from receiver.errors import Unavailable
from receiver.storage import samples
from receiver.storage.database import Database
from receiver.storage.installation import LAST_BACKUP, fact
from receiver.telemetry import sampled
from receiver.telemetry.log import get_logger
from receiver.telemetry.own_process import observe_process

log = get_logger("workers.sampler")

EVERY_SECONDS = 15.0
LATE = timedelta(seconds=60)
"""What has been due for longer is overdue."""
_PAUSES = 50

AskFault = Callable[[], Awaitable[str | None]]


class Paused(Protocol):
    """A provider, as the sampler sees it."""

    def paused_for(self) -> float:
        """Return the seconds until the end of a pause; 0 without one."""
        ...


class Sampler:
    """Sets the gauges of `receiver.telemetry.sampled`.

    `fault` says why the service is not ready, or None. `file` is that of SQLite, None with PostgreSQL. `shared` is the
    folder in which several workers share their metrics, None where there is one process.
    """

    def __init__(
        self,
        database: Database,
        providers: Mapping[str, Paused],
        fault: AskFault,
        *,
        file: Path | None,
        shared: Path | None,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._database = database
        self._providers = providers
        self._fault = fault
        self._file = file
        self._shared = shared
        self._every = every_seconds
        self._lock: IO[bytes] | None = None

    async def run(self) -> None:
        """Sample at intervals until cancelled."""
        try:
            while True:
                took = await self.sample()
                await asyncio.sleep(max(self._every, took * _PAUSES))
        finally:
            self.release()

    async def sample(self) -> float:
        """Sample once; return how many seconds the database took."""
        await asyncio.to_thread(observe_process)
        for name, provider in self._providers.items():
            sampled.provider_paused.labels(name).set(provider.paused_for())
        sampled.ready.set(await self._fault() is None)
        if not self._is_chosen():
            return 0.0
        began = time.monotonic()
        try:
            await self._sample_database()
        except Unavailable as error:
            log.debug("metrics not read", error=str(error))  # `ringback_ready` and the age of the sample show it
        return time.monotonic() - began

    def release(self) -> None:
        """Let another worker read the database."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _is_chosen(self) -> bool:
        """Return whether this process is the one that reads the database; it stays so."""
        if self._shared is None or self._lock is not None:
            return True
        lock = (self._shared / "sampler.lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    async def _sample_database(self) -> None:
        now = utc_now()
        moments = {"now": now, "late": now - LATE}
        for action, conditions in samples.DUE_TASKS.items():
            found = [(await self._database.read(samples.due_tasks(each), moments))[0] for each in conditions]
            sampled.tasks_due.labels(action).set(sum(row["due"] for row in found))
            sampled.tasks_overdue.labels(action).set(sum(row["overdue"] for row in found))
            ages = [(now - row["oldest"]).total_seconds() for row in found if row["oldest"] is not None]
            sampled.tasks_oldest_due.labels(action).set(max(ages, default=0.0))
        (row,) = await self._database.read(samples.due_deliveries(), moments)
        sampled.deliveries_due.set(row["due"])
        sampled.deliveries_overdue.set(row["overdue"])
        sampled.deliveries_oldest_due.set(0 if row["oldest"] is None else (now - row["oldest"]).total_seconds())
        (row,) = await self._database.read(samples.open_tasks())
        for status in samples.OPEN_TASKS:
            sampled.tasks_open.labels(status).set(row[status])
        sampled.runs_open.set((await self._database.read(samples.open_runs()))[0]["open"])
        (row,) = await self._database.read(samples.faulty_webhooks())
        sampled.webhooks_disabled.set(row["disabled"])
        sampled.webhooks_failing.set(row["failing"])
        sampled.fan_outs_waiting.set((await self._database.read(samples.waiting_fan_outs()))[0]["waiting"])
        if rows := await self._database.read(fact(LAST_BACKUP)):
            sampled.last_backup.set(datetime.fromisoformat(orjson.loads(rows[0]["value"])["at"]).timestamp())
        if self._file is None:
            sampled.database_bytes.set((await self._database.read(samples.database_size()))[0]["bytes"])
        else:
            await asyncio.to_thread(_sample_disk, self._file)
        sampled.sampled_at.set(wall_now().timestamp())


def _sample_disk(file: Path) -> None:
    parts = (file, file.with_name(f"{file.name}-wal"))
    sampled.database_bytes.set(sum(part.stat().st_size for part in parts if part.exists()))
    disk = shutil.disk_usage(file.parent)
    sampled.disk_free.set(disk.free)
    sampled.disk_size.set(disk.total)
