"""Deliveries claimed from the table, sent and settled, against bare aiohttp; and what failing subscribers cost others.

`deliveries` measures the first, `isolation` the second.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, SQLITE, Store
from tests.bench.delivering_service import delivering_service
from tests.bench.load import percentiles
from tests.bench.processes import ringback
from tests.bench.report import at_least, at_most
from tests.bench.seed_rows import add_due_deliveries, add_pending_tasks
from tests.bench.subscriber import Subscriber, subscribing

_COUNT = 4_000
_BESIDE_RATE = 200.0
_BESIDE_SECONDS = 3.0
_WARM_UP_SECONDS = 0.5


@dataclass
class _Backlog:
    """A service and a subscriber, for which deliveries are inserted into the service's table."""

    store: Store
    subscriber: Subscriber
    webhook: str

    async def rate(self) -> float:
        """Return how many deliveries a second the subscriber receives, from the first to the last."""
        self.subscriber.reset()
        add_due_deliveries(self.store, add_pending_tasks(self.store, _COUNT), self.webhook)
        await self.subscriber.received(_COUNT)
        await self.store.until_settled()
        return (_COUNT - 1) / self.subscriber.span()


async def deliveries(context: BenchContext) -> None:
    """Measure deliveries that are claimed from the table, against bare aiohttp."""
    async with AsyncExitStack() as resources:
        backlogs = []
        for kind in KINDS:
            store = await context.databases.new(kind)
            subscriber = await resources.enter_async_context(subscribing())
            service = await resources.enter_async_context(ringback(store))
            backlogs.append(_Backlog(store, subscriber, await service.subscribe(subscriber.url)))
        for _ in context.runs("deliveries"):
            bare = await _bare_rate(backlogs[0].subscriber)
            context.report.add("bare aiohttp: POSTs a second, 64 at a time", "", bare, form="{:,.0f}")
            for backlog in backlogs:
                ours, kind = await backlog.rate(), backlog.store.kind
                context.report.add("deliveries claimed, sent and settled a second", kind, ours, form="{:,.0f}")
                context.report.add("  against bare aiohttp", kind, ours / bare, form="{:.0%}", aim=at_least(0.7))


async def isolation(context: BenchContext) -> None:
    """Measure a healthy subscriber alone, and beside one that hangs and one that fails."""
    for _ in context.runs("isolation"):
        alone, beside = await _p99(context), await _p99(context, "/hang", "/fail")
        add = context.report.add
        add("webhook to subscriber at 200 a second, p99 ms", SQLITE, alone, form="{:.1f}")
        add("  beside a subscriber that hangs and one that fails", SQLITE, beside, form="{:.1f}")
        add("  against without them", SQLITE, beside / alone, form="{:.1f} ×", aim=at_most(2))


async def _p99(context: BenchContext, *neighbours: str) -> float:
    """Return the 99th percentile of the healthy subscriber's latencies, in milliseconds."""
    store = await context.databases.new(SQLITE)
    try:
        async with delivering_service(
            store, subscribed=int(_BESIDE_RATE * (_BESIDE_SECONDS + _WARM_UP_SECONDS))
        ) as measured:
            for neighbour in neighbours:
                await measured.service.subscribe(measured.subscriber.base + neighbour)
            await measured.latencies(_BESIDE_RATE, _WARM_UP_SECONDS)
            return percentiles(await measured.latencies(_BESIDE_RATE, _BESIDE_SECONDS))[1]
    finally:
        context.databases.drop(store)


async def _bare_rate(subscriber: Subscriber) -> float:
    """Return how many POSTs a second bare aiohttp makes, in its own process as Ringback is."""
    subscriber.reset()
    command = [sys.executable, "-m", "tests.bench.bare_aiohttp", subscriber.url, str(_COUNT)]
    process = await asyncio.create_subprocess_exec(*command)
    await subscriber.received(_COUNT)
    await process.wait()
    return (_COUNT - 1) / subscriber.span()
