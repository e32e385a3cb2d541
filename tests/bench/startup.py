"""The time from the command to the first 200 of `/readyz`, on an existing database, and the memory at rest."""

import asyncio
import time

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, POSTGRESQL, SQLITE
from tests.bench.processes import ringback
from tests.bench.report import at_most
from tests.bench.seed_rows import add_pending_tasks

_TASKS = 10_000
_READY_AIMS = {SQLITE: at_most(0.5), POSTGRESQL: at_most(0.6)}
_IDLE_MIB = at_most(60)
_IDLE_SECONDS = 1.0
"""After this time at rest memory is read: every loop of the service has been run by then."""


async def startup(context: BenchContext) -> None:
    """Measure the time from the command to the first 200 of `/readyz`, and the memory at rest."""
    stores = [await context.databases.new(kind) for kind in KINDS]
    for store in stores:
        add_pending_tasks(store, _TASKS)
    for _ in context.runs("startup"):
        for store in stores:
            kind, started = store.kind, time.perf_counter()
            async with ringback(store) as service:
                seconds = time.perf_counter() - started
                await asyncio.sleep(_IDLE_SECONDS)
                memory = service.resident_mib()
            context.report.add("from start to ready, s", kind, seconds, form="{:.2f}", aim=_READY_AIMS[kind])
            context.report.add("memory of the process at rest, MiB", kind, memory, form="{:.0f}", aim=_IDLE_MIB)
