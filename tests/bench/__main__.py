"""`make bench`: speed as ratios, in one run. Prints a table, and writes JSON where `--json FILE` says."""

import argparse
import asyncio
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from receiver.telemetry import configure_logging
from tests.bench import deliveries
from tests.bench.load import Outcome, run
from tests.bench.material import fill, webhook
from tests.bench.processes import serving
from tests.bench.streams import measure_idle_streams

CONNECTIONS = 64
WARM_UP = 500
INBOUND = {"limit": 20_000, "ringback": 12_000, "plain": 1_000}
DELIVERIES = 8_000
LATENCY_SECONDS = 6
console = Console(stderr=True)


@dataclass
class Row:
    """One figure, as it came out in each run."""

    name: str
    aim: str
    form: str
    values: list[float] = field(default_factory=list)

    def shown(self) -> tuple[str, str, str]:
        """Return the cells of the table: the median with its spread."""
        low, middle, high = min(self.values), statistics.median(self.values), max(self.values)
        texts = [self.form.format(value) for value in (middle, low, high)]
        return self.name, f"{texts[0]}  ({texts[1]} to {texts[2]})", self.aim


class Report:
    """The rows, in the order in which they were first measured."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, name: str, value: float, *, form: str, aim: str = "") -> None:
        """Add one run's figure."""
        self.rows.setdefault(name, Row(name, aim, form)).values.append(value)

    def show(self) -> None:
        """Print the table."""
        table = Table("measured in one run", "median (spread)", "aim")
        for row in self.rows.values():
            table.add_row(*row.shown())
        Console().print(table)

    def write(self, file: Path) -> None:
        """Write the figures as JSON."""
        rows = [{"name": row.name, "aim": row.aim, "values": row.values} for row in self.rows.values()]
        file.write_bytes(orjson.dumps({"rows": rows}, option=orjson.OPT_INDENT_2))


def inbound(report: Report) -> None:
    """Webhooks made durable, against the same route without storage and against the plain way."""
    with tempfile.TemporaryDirectory() as folder:
        uids = asyncio.run(fill(Path(folder), max(INBOUND.values()) + WARM_UP))
        requests = [webhook(uid) for uid in uids]
        rates = {kind: _inbound_rate(kind, Path(folder), requests) for kind in INBOUND}
    report.add("inbound, SQLite, a second", rates["ringback"], form="{:,.0f}")
    report.add("  the same route, nothing stored", rates["limit"], form="{:,.0f}")
    report.add("  inbound of that", rates["ringback"] / rates["limit"], form="{:.0%}", aim="≥ 25 %")
    report.add("  one SQLModel transaction a request", rates["plain"], form="{:,.0f}")
    report.add("  inbound against that", rates["ringback"] / rates["plain"], form="{:.1f} ×")


def _inbound_rate(kind: str, template: Path, requests: Sequence[bytes]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        for file in template.iterdir():
            shutil.copy(file, folder)
        with serving(kind, Path(folder)) as port:
            run(port, requests[:WARM_UP], CONNECTIONS)
            outcome: Outcome = run(port, requests[WARM_UP : WARM_UP + INBOUND[kind]], CONNECTIONS)
    if outcome.statuses["200"] != INBOUND[kind]:
        raise SystemExit(f"{kind}: not every webhook was answered with 200: {dict(outcome.statuses)}")
    return outcome.rate


def telling(report: Report) -> None:
    """Deliveries made and settled, against bare aiohttp."""
    ours, bare = deliveries.our_rate(DELIVERIES), deliveries.bare_rate(DELIVERIES)
    report.add("deliveries, made and settled, a second", ours, form="{:,.0f}")
    report.add("  bare aiohttp, 64 at a time", bare, form="{:,.0f}")
    report.add("  deliveries of that", ours / bare, form="{:.0%}", aim="60 %")


def latency(report: Report) -> None:
    """From a webhook's first byte to its subscriber."""
    middle, slow = deliveries.percentiles(deliveries.latencies(50 * LATENCY_SECONDS, 50))
    report.add("webhook to subscriber at 50 a second, p50 ms", middle, form="{:.1f}", aim="≤ 2.5")
    report.add("  webhook to subscriber, p99 ms", slow, form="{:.1f}", aim="≤ 8")


def isolation(report: Report) -> None:
    """A healthy subscriber beside one that hangs and one that fails."""
    _, alone = deliveries.percentiles(deliveries.latencies(200 * LATENCY_SECONDS, 200))
    _, beside = deliveries.percentiles(deliveries.latencies(200 * LATENCY_SECONDS, 200, ("/hang", "/fail")))
    report.add("p99 ms at 200 a second, alone", alone, form="{:.1f}")
    report.add("  beside one that hangs and one that fails", beside, form="{:.1f}")
    report.add("  beside against alone", beside / alone, form="{:.1f} ×", aim="≤ 2 ×")


def idle_streams(report: Report) -> None:
    """What a reader of the live stream costs while nothing happens."""
    report.add("KiB a connection at 2,000 idle streams", measure_idle_streams().each, form="{:.1f}", aim="≤ 25")


PARTS: dict[str, Callable[[Report], None]] = {
    part.__name__: part for part in (inbound, telling, latency, isolation, idle_streams)
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"what to measure: {', '.join(PARTS)}; all of it if none is named")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured, in turn")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}")
    configure_logging()
    report = Report()
    for number in range(arguments.runs):
        for part in arguments.parts or PARTS:
            console.print(f"run {number + 1} of {arguments.runs}: {part}")
            PARTS[part](report)
    report.show()
    if arguments.json is not None:
        report.write(arguments.json)


if __name__ == "__main__":
    main()
