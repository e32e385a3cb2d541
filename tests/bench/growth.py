"""What a table that has grown costs: inbound and the whole way, with ten thousand tasks in it and with a million."""

from contextlib import AsyncExitStack

from tests.bench.databases import KINDS
from tests.bench.line import Line, lines_on
from tests.bench.report import at_least
from tests.bench.stage import SIZES, Stage

_SECONDS = 0.8
_WAITING = 6_000
_FLAT = at_least(0.8)


async def growth(stage: Stage) -> None:
    """Measure each size in turn, against the smallest."""
    for kind in KINDS:
        async with AsyncExitStack() as resources:
            stores = [await stage.grown(kind, size) for size in SIZES]
            lines = await lines_on(stores, resources, _WAITING * stage.how_often)
            for _ in stage.runs(f"growth, {kind}"):
                await _measure(stage, kind, dict(zip(SIZES, lines, strict=True)))


async def _measure(stage: Stage, kind: str, lines: dict[int, Line]) -> None:
    inbound = {size: await lines[size].inbound_rate(_SECONDS) for size in SIZES}
    told = {size: await lines[size].rate(_SECONDS) for size in SIZES}
    for size in SIZES[1:]:
        for what, rates in (("inbound", inbound), ("dispatch", told)):
            of_smallest = rates[size] / rates[SIZES[0]]
            name = f"{what} with {size:,} tasks of that with {SIZES[0]:,}"
            stage.report.add(name, kind, of_smallest, form="{:.0%}", aim=_FLAT)
