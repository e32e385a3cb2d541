"""As many webhooks as the service takes on 64 connections: what it accepts and delivers meanwhile, and how late."""

from contextlib import AsyncExitStack

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, POSTGRESQL, SQLITE
from tests.bench.delivering_service import DeliveringService, delivering_services
from tests.bench.load import percentiles
from tests.bench.report import at_most

_SECONDS = 2.5
_WAITING = 16_000
"""Pending tasks for one run: more than end in it. If they were too few, the run would only be shorter."""
_P50_AIMS = {SQLITE: at_most(40), POSTGRESQL: at_most(25)}


async def full_load(context: BenchContext) -> None:
    """Measure what is accepted and delivered while 64 connections send, and the latency of deliveries."""
    async with AsyncExitStack() as resources:
        stores = [await context.databases.new(kind) for kind in KINDS]
        services = await delivering_services(stores, resources, _WAITING * context.run_count, unsubscribed=0)
        for _ in context.runs("full_load"):
            for each in services:
                await _measure(context, each)


async def _measure(context: BenchContext, measured: DeliveringService) -> None:
    load, kind, add = await measured.full_load(_SECONDS), measured.store.kind, context.report.add
    p50, p99 = percentiles(load.latencies)
    add("full load: webhooks accepted a second", kind, load.accepted, form="{:,.0f}")
    add("  delivered a second meanwhile", kind, load.delivered, form="{:,.0f}")
    add("  full load: webhook to subscriber, p50 ms", kind, p50, form="{:.1f}", aim=_P50_AIMS[kind])
    add("  full load: webhook to subscriber, p99 ms", kind, p99, form="{:.1f}")
