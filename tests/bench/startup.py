"""The time from the command to the first 200 of `/readyz`, on an existing database."""

import time

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, SQLITE
from tests.bench.processes import ringback
from tests.bench.report import at_most
from tests.bench.seed_rows import add_pending_tasks

_TASKS = 10_000


async def startup(context: BenchContext) -> None:
    """Measure the time from the command to the first 200 of `/readyz`."""
    stores = [await context.databases.new(kind) for kind in KINDS]
    for store in stores:
        add_pending_tasks(store, _TASKS)
    for _ in context.runs("startup"):
        for store in stores:
            started = time.perf_counter()
            async with ringback(store):
                seconds = time.perf_counter() - started
            aim = at_most(1) if store.kind == SQLITE else None
            context.report.add("from start to ready, s", store.kind, seconds, form="{:.2f}", aim=aim)
