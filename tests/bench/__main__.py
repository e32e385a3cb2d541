"""`make bench`: speed as ratios, in one run. Prints a table, and writes JSON where `--json FILE` says."""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.load import Outcome, run
from tests.bench.material import fill, webhook
from tests.fakes.servers import free_port

CONNECTIONS = 64
WARM_UP = 500
COUNTS = {"limit": 20_000, "ringback": 12_000, "plain": 1_000}


def measure(kind: str, template: Path, requests: list[bytes]) -> Outcome:
    """Run one server on a fresh copy of the database and load it with the requests."""
    with tempfile.TemporaryDirectory() as folder:
        for file in template.iterdir():
            shutil.copy(file, folder)
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.servers", kind, folder, str(port)], env=environment
        )
        try:
            _listening(port, server)
            run(port, requests[:WARM_UP], CONNECTIONS)
            outcome = run(port, requests[WARM_UP : WARM_UP + COUNTS[kind]], CONNECTIONS)
        finally:
            server.terminate()
            server.wait(20)
    if outcome.statuses["200"] != COUNTS[kind]:
        raise SystemExit(f"{kind}: not every webhook was answered with 200: {dict(outcome.statuses)}")
    return outcome


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured, in turn")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uids = asyncio.run(fill(Path(folder), max(COUNTS.values()) + WARM_UP))
        requests = [webhook(uid) for uid in uids]
        rates: dict[str, list[float]] = {kind: [] for kind in COUNTS}
        p99: dict[str, list[float]] = {kind: [] for kind in COUNTS}
        for _ in range(arguments.runs):
            for kind in COUNTS:
                outcome = measure(kind, Path(folder), requests)
                rates[kind].append(outcome.rate)
                p99[kind].append(statistics.quantiles(outcome.latencies, n=100)[98] * 1000)
    report(rates, p99, arguments.json)


def report(rates: dict[str, list[float]], p99: dict[str, list[float]], file: Path | None) -> None:
    """Print the rows with their spread over the runs."""
    table = Table("inbound webhooks, SQLite, on disk before the 200", "a second", "p99 ms", "of the limit", "of plain")
    rows = []
    for kind, mine in rates.items():
        of_limit = [rate / limit for rate, limit in zip(mine, rates["limit"], strict=True)]
        of_plain = [rate / plain for rate, plain in zip(mine, rates["plain"], strict=True)]
        rows.append({"kind": kind, "rate": mine, "p99_ms": p99[kind], "of_limit": of_limit, "of_plain": of_plain})
        table.add_row(
            kind,
            _spread(mine, "{:,.0f}"),
            _spread(p99[kind], "{:.1f}"),
            _spread(of_limit, "{:.0%}"),
            _spread(of_plain, "{:.1f}x"),
        )
    Console().print(table)
    if file is not None:
        file.write_bytes(orjson.dumps({"inbound_sqlite": rows}, option=orjson.OPT_INDENT_2))


def _spread(values: list[float], form: str) -> str:
    return f"{form.format(statistics.median(values))} ({form.format(min(values))} to {form.format(max(values))})"


def _listening(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Return when the server answers at all; a 404 is an answer."""
    deadline = time.monotonic() + 20
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("a server of the bench did not start")


if __name__ == "__main__":
    main()
