"""`make bench`: speed as ratios in one run, on SQLite and on PostgreSQL. Prints a table and writes JSON.

Everything that it needs it starts, and stops again; the databases are in a temporary folder. Every figure is shown
with its spread over the runs, whose loads alternate: what one minute is slow for, is slow for all of them.
"""

import argparse
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop

from tests.bench.context import BenchContext
from tests.bench.creation import creation
from tests.bench.databases import Databases
from tests.bench.deliveries import deliveries, isolation
from tests.bench.end_to_end import end_to_end
from tests.bench.growth import growth
from tests.bench.inbound import inbound
from tests.bench.listing import listing
from tests.bench.recovery import recovery
from tests.bench.report import Report
from tests.bench.runs import runs
from tests.bench.startup import startup
from tests.bench.streams import streams

PARTS: dict[str, Callable[[BenchContext], Awaitable[None]]] = {
    part.__name__: part
    for part in (
        inbound,
        end_to_end,
        deliveries,
        isolation,
        creation,
        runs,
        recovery,
        startup,
        listing,
        growth,
        streams,
    )
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"what to measure: {', '.join(PARTS)}; all of it if none is named")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured, in turn")
    parser.add_argument("--json", type=Path, default=Path(".bench.json"), help="where the figures are written")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it leaves nothing behind
    started, report = time.monotonic(), Report(load_before=os.getloadavg()[0])
    try:
        uvloop.run(measure(arguments.parts or list(PARTS), report, arguments.runs))
    finally:
        seconds = time.monotonic() - started
        report.show(seconds)
        report.write(arguments.json, seconds)


async def measure(parts: list[str], report: Report, runs: int) -> None:
    """Measure some parts, one after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.disable()  # it would stop the load, which is the clock of all this
    with Databases.temporary() as databases:
        context = BenchContext(databases, report, runs)
        for part in parts:
            await PARTS[part](context)


if __name__ == "__main__":
    main()
