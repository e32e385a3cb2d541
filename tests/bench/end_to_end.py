"""The whole way, from webhook to settled delivery: how many, how soon, and at what cost of memory."""

from contextlib import AsyncExitStack

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS
from tests.bench.delivering_service import DeliveringService, delivering_services
from tests.bench.load import percentiles
from tests.bench.report import Aim, at_least, at_most

_SECONDS = 1.2
_WAITING = 12_000
"""Tasks for one run: more than are ended in it. Where they are too few, the run is only shorter."""
_QUIET_RATE = 50.0
_QUIET_SECONDS = 4.0
_BUSY_SECONDS = 2.0
_QUIET_AIMS = (at_most(2.5), at_most(8))
_BUSY_AIMS = (at_most(4), at_most(15))


async def end_to_end(context: BenchContext) -> None:
    """Measure webhooks that are delivered to a subscriber who answers at once."""
    async with AsyncExitStack() as resources:
        stores = [await context.databases.new(kind) for kind in KINDS]
        waiting = _WAITING * context.run_count
        lines = await delivering_services(stores, resources, waiting)
        for _ in context.runs("end_to_end"):
            for each in lines:
                await _measure(context, each)


async def _measure(context: BenchContext, measured: DeliveringService) -> None:
    kind = measured.store.kind
    inbound = await measured.inbound_rate(_SECONDS)
    told = await measured.rate(_SECONDS)
    add = context.report.add
    add("webhook in, delivered, settled: a second", kind, told, form="{:,.0f}")
    add("  of inbound alone", kind, told / inbound, form="{:.0%}", aim=at_least(0.45))
    quiet = await measured.latencies(_QUIET_RATE, _QUIET_SECONDS)
    _add_percentiles(context, "webhook to subscriber at 50 a second", kind, quiet, _QUIET_AIMS)
    busy = await measured.latencies(told / 2, _BUSY_SECONDS)
    _add_percentiles(context, "webhook to subscriber at half of what it can", kind, busy, _BUSY_AIMS)
    add("memory of a loaded process, MiB", kind, measured.service.resident_mib(), form="{:.0f}", aim=at_most(120))


def _add_percentiles(context: BenchContext, what: str, kind: str, seconds: list[float], aims: tuple[Aim, Aim]) -> None:
    middle, slow = percentiles(seconds)
    context.report.add(f"{what}, p50 ms", kind, middle, form="{:.1f}", aim=aims[0])
    context.report.add(f"  {what}, p99 ms", kind, slow, form="{:.1f}", aim=aims[1])
