"""What a table that has grown costs: inbound and the whole way, with ten thousand tasks in it and with a million."""

from contextlib import AsyncExitStack

from tests.bench.context import SIZES, BenchContext
from tests.bench.databases import KINDS
from tests.bench.delivering_service import DeliveringService, delivering_services
from tests.bench.report import at_least

_SECONDS = 0.8
_WAITING = 6_000
_FLAT = at_least(0.8)


async def growth(context: BenchContext) -> None:
    """Measure each size in turn, against the smallest."""
    for kind in KINDS:
        async with AsyncExitStack() as resources:
            stores = [await context.with_history(kind, size) for size in SIZES]
            lines = await delivering_services(stores, resources, _WAITING * context.run_count)
            for _ in context.runs(f"growth, {kind}"):
                await _measure(context, kind, dict(zip(SIZES, lines, strict=True)))


async def _measure(context: BenchContext, kind: str, lines: dict[int, DeliveringService]) -> None:
    inbound = {size: await lines[size].inbound_rate(_SECONDS) for size in SIZES}
    told = {size: await lines[size].rate(_SECONDS) for size in SIZES}
    for size in SIZES[1:]:
        for what, rates in (("inbound", inbound), ("dispatch", told)):
            of_smallest = rates[size] / rates[SIZES[0]]
            name = f"{what} with {size:,} tasks of that with {SIZES[0]:,}"
            context.report.add(name, kind, of_smallest, form="{:.0%}", aim=_FLAT)
