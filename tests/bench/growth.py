"""What a large table costs: inbound webhooks and deliveries, with from ten thousand to a million tasks in the table."""

from contextlib import AsyncExitStack

from tests.bench.context import SIZES, BenchContext
from tests.bench.databases import KINDS
from tests.bench.delivering_service import DeliveringService, delivering_services
from tests.bench.report import at_least

_SECONDS = 0.8
_WAITING = 6_000
_FLAT = at_least(0.8)


async def growth(context: BenchContext) -> None:
    """Measure inbound webhooks and deliveries with tables of several sizes, against the smallest."""
    for kind in KINDS:
        async with AsyncExitStack() as resources:
            stores = [await context.with_history(kind, size) for size in SIZES]
            services = await delivering_services(stores, resources, _WAITING * context.run_count)
            for _ in context.runs(f"growth, {kind}"):
                await _measure(context, kind, dict(zip(SIZES, services, strict=True)))


async def _measure(context: BenchContext, kind: str, services: dict[int, DeliveringService]) -> None:
    inbound = {size: await services[size].inbound_rate(_SECONDS) for size in SIZES}
    delivered = {size: await services[size].delivery_rate(_SECONDS) for size in SIZES}
    for size in SIZES[1:]:
        for what, rates in (("inbound webhooks", inbound), ("deliveries", delivered)):
            ratio = rates[size] / rates[SIZES[0]]
            name = f"{what} with {size:,} tasks, against {SIZES[0]:,}"
            context.report.add(name, kind, ratio, form="{:.0%}", aim=_FLAT)
