"""From the command to the first good answer of `/readyz`, on a database that is there."""

import time

from tests.bench.bulk import add_waiting
from tests.bench.databases import KINDS, SQLITE
from tests.bench.processes import ringback
from tests.bench.report import at_most
from tests.bench.stage import Stage

_TASKS = 10_000


async def startup(stage: Stage) -> None:
    """Measure the start."""
    stores = [await stage.databases.new(kind) for kind in KINDS]
    for store in stores:
        add_waiting(store, _TASKS)
    for _ in stage.runs("startup"):
        for store in stores:
            started = time.perf_counter()
            async with ringback(store):
                seconds = time.perf_counter() - started
            aim = at_most(1) if store.kind == SQLITE else None
            stage.report.add("start to ready, s", store.kind, seconds, form="{:.2f}", aim=aim)
