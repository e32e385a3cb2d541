"""From inbound webhook to settled delivery: throughput, latency and memory.

Latencies are shown beside those of a bare server (`tests.bench.bare_server`) in the same run: what is above them is the
service's own part, and the rest is what the machine takes to wake processes.
"""

from contextlib import AsyncExitStack

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, POSTGRESQL, SQLITE
from tests.bench.delivering_service import BareServer, DeliveringService, bare_service, delivering_services
from tests.bench.load import percentiles
from tests.bench.report import Aim, at_least, at_most

_SECONDS = 1.2
_WAITING = 12_000
"""Pending tasks for one run: more than end in it. If they were too few, the run would only be shorter."""
_RATES = {50.0: 4.0, 300.0: 2.5}
"""Webhooks a second, and for how many seconds."""
_HALF_SECONDS = 2.0
_OF_INBOUND = {SQLITE: at_least(0.75), POSTGRESQL: at_least(0.70)}
_AIMS: dict[str, dict[float, tuple[Aim, Aim]]] = {
    SQLITE: {50.0: (at_most(1.5), at_most(3)), 300.0: (at_most(1.0), at_most(2.5))},
    POSTGRESQL: {50.0: (at_most(2.2), at_most(5)), 300.0: (at_most(1.4), at_most(6))},
}
"""Of the median and the 99th percentile, in milliseconds."""
_HALF_AIMS = {SQLITE: (at_most(4), at_most(15)), POSTGRESQL: (at_most(6), at_most(20))}
_LOADED_MIB = at_most(80)


async def end_to_end(context: BenchContext) -> None:
    """Measure webhooks whose events are delivered to a subscriber that responds at once."""
    async with AsyncExitStack() as resources:
        bare = await resources.enter_async_context(bare_service(context.databases.folder()))
        stores = [await context.databases.new(kind) for kind in KINDS]
        services = await delivering_services(stores, resources, _WAITING * context.run_count)
        for _ in context.runs("end_to_end"):
            wake_ups = {rate: await _bare(context, bare, rate) for rate in _RATES}
            for each in services:
                await _measure(context, each, wake_ups)


async def _bare(context: BenchContext, bare: BareServer, rate: float) -> float:
    """Measure the bare server; return the median in milliseconds."""
    measured = percentiles(await bare.latencies(rate, _RATES[rate]))
    _add_percentiles(context, f"bare server, webhook to subscriber at {rate:.0f} a second", "", measured)
    return measured[0]


async def _measure(context: BenchContext, measured: DeliveringService, wake_ups: dict[float, float]) -> None:
    kind = measured.store.kind
    inbound = await measured.inbound_rate(_SECONDS)
    delivered = await measured.delivery_rate(_SECONDS)
    add = context.report.add
    add("webhooks received, delivered and settled a second", kind, delivered, form="{:,.0f}")
    add("  against inbound alone", kind, delivered / inbound, form="{:.0%}", aim=_OF_INBOUND[kind])
    for rate, seconds in _RATES.items():
        found = percentiles(await measured.latencies(rate, seconds))
        what = f"webhook to subscriber at {rate:.0f} a second"
        _add_percentiles(context, what, kind, found, _AIMS[kind][rate])
        add(f"  {what}, p50 above the bare server's, ms", kind, found[0] - wake_ups[rate], form="{:.2f}")
    half = percentiles(await measured.latencies(delivered / 2, _HALF_SECONDS))
    _add_percentiles(context, "webhook to subscriber at half of the maximum rate", kind, half, _HALF_AIMS[kind])
    add("memory of the process under load, MiB", kind, measured.service.resident_mib(), form="{:.0f}", aim=_LOADED_MIB)


def _add_percentiles(
    context: BenchContext,
    what: str,
    kind: str,
    milliseconds: tuple[float, float],
    aims: tuple[Aim | None, Aim | None] = (None, None),
) -> None:
    p50, p99 = milliseconds
    context.report.add(f"{what}, p50 ms", kind, p50, form="{:.2f}", aim=aims[0])
    context.report.add(f"  {what}, p99 ms", kind, p99, form="{:.1f}", aim=aims[1])
