"""From inbound webhook to settled delivery: throughput, latency and memory."""

from contextlib import AsyncExitStack

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS
from tests.bench.delivering_service import DeliveringService, delivering_services
from tests.bench.load import percentiles
from tests.bench.report import Aim, at_least, at_most

_SECONDS = 1.2
_WAITING = 12_000
"""Pending tasks for one run: more than end in it. If they were too few, the run would only be shorter."""
_QUIET_RATE = 50.0
_QUIET_SECONDS = 4.0
_BUSY_SECONDS = 2.0
_QUIET_AIMS = (at_most(2.5), at_most(8))
_BUSY_AIMS = (at_most(4), at_most(15))


async def end_to_end(context: BenchContext) -> None:
    """Measure webhooks whose events are delivered to a subscriber that responds at once."""
    async with AsyncExitStack() as resources:
        stores = [await context.databases.new(kind) for kind in KINDS]
        services = await delivering_services(stores, resources, _WAITING * context.run_count)
        for _ in context.runs("end_to_end"):
            for each in services:
                await _measure(context, each)


async def _measure(context: BenchContext, measured: DeliveringService) -> None:
    kind = measured.store.kind
    inbound = await measured.inbound_rate(_SECONDS)
    delivered = await measured.delivery_rate(_SECONDS)
    add = context.report.add
    add("webhooks received, delivered and settled a second", kind, delivered, form="{:,.0f}")
    add("  against inbound alone", kind, delivered / inbound, form="{:.0%}", aim=at_least(0.45))
    quiet = await measured.latencies(_QUIET_RATE, _QUIET_SECONDS)
    _add_percentiles(context, "webhook to subscriber at 50 a second", kind, quiet, _QUIET_AIMS)
    busy = await measured.latencies(delivered / 2, _BUSY_SECONDS)
    _add_percentiles(context, "webhook to subscriber at half of the maximum rate", kind, busy, _BUSY_AIMS)
    add("memory of the process under load, MiB", kind, measured.service.resident_mib(), form="{:.0f}", aim=at_most(120))


def _add_percentiles(context: BenchContext, what: str, kind: str, seconds: list[float], aims: tuple[Aim, Aim]) -> None:
    p50, p99 = percentiles(seconds)
    context.report.add(f"{what}, p50 ms", kind, p50, form="{:.1f}", aim=aims[0])
    context.report.add(f"  {what}, p99 ms", kind, p99, form="{:.1f}", aim=aims[1])
