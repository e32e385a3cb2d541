"""A table of `--scale` tasks, such as ten million: inbound webhooks and deliveries against a small table, and a list.

One kind of database after the other, because of the space on the disk: each is removed before the next is filled.
"""

import random
import shutil
import time
from contextlib import AsyncExitStack

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, Store
from tests.bench.delivering_service import DeliveringService, delivering_services
from tests.bench.listing import page_requests
from tests.bench.load import closed_loop, percentiles
from tests.bench.report import at_least, at_most
from tests.bench.seed_rows import add_ended_tasks

_SMALL = 10_000
_SECONDS = 1.5
_WAITING = 12_000
_BYTES_A_TASK = 1_500
"""Of space on the disk for each task while a table is filled, with its indexes and the log of the database."""
_FLAT = at_least(0.85)
_PAGE_P99 = at_most(20)


async def scale(context: BenchContext) -> None:
    """Measure a table of as many tasks as `--scale` says, by default a million (takes minutes)."""
    for kind in KINDS:
        stores = [await context.databases.new(kind) for _ in range(2)]
        for store, size in zip(stores, (_SMALL, context.scale), strict=True):
            _fill(context, store, size)
        async with AsyncExitStack() as resources:
            small, large = await delivering_services(stores, resources, _WAITING * context.run_count)
            for number in context.runs(f"scale, {kind}"):
                await _measure(context, small, large)
                await _measure_pages(context, large, number)
        for store in stores:
            context.databases.drop(store)


def _fill(context: BenchContext, store: Store, size: int) -> None:
    """Add tasks, and print how far that is. Ends the bench if the disk has no room for them."""
    free, needed = shutil.disk_usage(store.folder).free, size * _BYTES_A_TASK
    if free < needed:
        raise SystemExit(f"{size:,} tasks need about {needed >> 20:,} MiB of space, and {free >> 20:,} MiB are free")
    started = time.monotonic()

    def tell(added: int) -> None:
        context.tell(f"{store.kind}: {added:,} of {size:,} tasks added in {time.monotonic() - started:.0f} s")

    add_ended_tasks(store, size, tell=tell)
    context.tell(f"{store.kind}: {size:,} tasks and their indexes in {time.monotonic() - started:.0f} s")


async def _measure(context: BenchContext, small: DeliveringService, large: DeliveringService) -> None:
    kind, add = large.store.kind, context.report.add
    sizes = f"with {context.scale:,} tasks, against {_SMALL:,}"
    inbound = await small.inbound_rate(_SECONDS), await large.inbound_rate(_SECONDS)
    delivered = await small.delivery_rate(_SECONDS), await large.delivery_rate(_SECONDS)
    add(f"inbound webhooks {sizes}", kind, inbound[1] / inbound[0], form="{:.0%}", aim=_FLAT)
    add(f"deliveries {sizes}", kind, delivered[1] / delivered[0], form="{:.0%}", aim=_FLAT)


async def _measure_pages(context: BenchContext, large: DeliveringService, number: int) -> None:
    requests = page_requests(random.Random(number), context.scale)
    outcome = (await closed_loop([large.service.port], requests, connections=1)).expect(b"200")
    p50, p99 = percentiles(outcome.latencies)
    name, add = f"list 50 of {context.scale:,} tasks", context.report.add
    add(f"{name}, p50 ms", large.store.kind, p50, form="{:.1f}")
    add(f"  {name}, p99 ms", large.store.kind, p99, form="{:.1f}", aim=_PAGE_P99)
