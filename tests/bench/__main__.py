"""Measure Ringback's speed as ratios in one run, on SQLite and on PostgreSQL. Prints a table and writes JSON.

The bench starts and stops everything that it needs; its databases are in a temporary folder. Every figure is the
median of several runs, shown between the lowest and the highest. The runs of what is compared alternate, so that a slow
minute of the machine affects all of them alike.
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

from tests.bench.context import SIZES, BenchContext
from tests.bench.creation import creation
from tests.bench.databases import Databases
from tests.bench.deliveries import deliveries, isolation
from tests.bench.end_to_end import end_to_end
from tests.bench.full_load import full_load
from tests.bench.growth import growth
from tests.bench.inbound import inbound
from tests.bench.listing import listing
from tests.bench.numbers import numbers
from tests.bench.pages import pages
from tests.bench.recovery import recovery
from tests.bench.report import Report
from tests.bench.runs import runs
from tests.bench.scale import scale
from tests.bench.startup import startup
from tests.bench.streams import many_streams, streams
from tests.bench.tenants import tenants

PARTS: dict[str, Callable[[BenchContext], Awaitable[None]]] = {
    part.__name__: part
    for part in (
        inbound,
        end_to_end,
        full_load,
        deliveries,
        isolation,
        tenants,
        creation,
        runs,
        recovery,
        startup,
        listing,
        growth,
        numbers,  # after the others that use its table: it adds deliveries that are never settled
        streams,
        many_streams,
        pages,
        scale,
    )
}
APART = ("pages", "scale")
"""Parts that take minutes: measured only where they are named."""


def main() -> None:
    """Measure the parts named on the command line, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="\n".join(["parts:", *(f"  {name:<13}{part.__doc__}" for name, part in PARTS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"a part to measure (default: all parts, listed below, but {', '.join(APART)})",
    )
    parser.add_argument(
        "--scale",
        type=_size,
        metavar="TASKS",
        help="measure the part scale, with a table of that many tasks, such as 1M or 10M",
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each figure is measured (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=Path(".bench.json"), help="the file for the figures (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that SIGTERM cleans up too
    started, report = time.monotonic(), Report(load_before=os.getloadavg()[0])
    try:
        uvloop.run(measure(_parts(arguments), report, arguments.runs, arguments.scale))
    finally:
        seconds = time.monotonic() - started
        report.show(seconds)
        report.write(arguments.json, seconds)


def _parts(arguments: argparse.Namespace) -> list[str]:
    """Return the parts to measure: those that are named, or that of a scale, or all that take no minutes."""
    if arguments.parts:
        return list(arguments.parts)
    return ["scale"] if arguments.scale is not None else [part for part in PARTS if part not in APART]


def _size(text: str) -> int:
    """Return a number of tasks: `10M` are ten million, `500k` half a million."""
    factor = {"K": 1_000, "M": 1_000_000}.get(text[-1:].upper(), 1)
    return int(text if factor == 1 else text[:-1]) * factor


async def measure(parts: list[str], report: Report, runs: int, scale: int | None) -> None:
    """Measure parts, one after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.disable()  # a collection would pause the load generator, whose clock measures everything
    with Databases.temporary() as databases:
        context = BenchContext(databases, report, runs, scale or SIZES[-1])
        for part in parts:
            await PARTS[part](context)


if __name__ == "__main__":
    main()
