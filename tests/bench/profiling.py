"""Where a service process spends its time under a load: a flame graph (SVG), and a table of the widest functions.

The profile is sampled from outside (py-spy), so the service runs as it always does. Attaching to a process may need
root, or `sysctl kernel.yama.ptrace_scope=0`.
"""

import argparse
import asyncio
import itertools
import logging
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.databases import POSTGRESQL, SQLITE, Databases
from tests.bench.delivering_service import delivering_service
from tests.bench.http_server import serving
from tests.bench.load import closed_loop
from tests.bench.processes import Service, ringback
from tests.bench.provider import KEY
from tests.bench.runs import completed, create_run

_RATE = 200
"""Samples a second. Between two of them the service runs undisturbed."""
_WIDEST = 30
_MOST_A_SECOND = 6_000
"""Of webhooks: as many tasks wait for theirs as end at this rate."""
_BEGINNING_SECONDS = 1.0
Load = Callable[[Databases, str, float], AbstractAsyncContextManager[Service]]
"""Runs a service on a database of this kind, and a load on it for so long."""


@asynccontextmanager
async def _inbound(databases: Databases, kind: str, seconds: float) -> AsyncIterator[Service]:
    """Webhooks of the provider that lead to no delivery."""
    store, waiting = await databases.new(kind), int(seconds * _MOST_A_SECOND)
    async with (
        delivering_service(store, subscribed=0, unsubscribed=waiting) as measured,
        _beside(closed_loop([measured.service.port], measured.unsubscribed, seconds=seconds)),
    ):
        yield measured.service


@asynccontextmanager
async def _deliveries(databases: Databases, kind: str, seconds: float) -> AsyncIterator[Service]:
    """Webhooks of the provider, each of which is delivered to a subscriber."""
    store, waiting = await databases.new(kind), int(seconds * _MOST_A_SECOND)
    async with (
        delivering_service(store, subscribed=waiting) as measured,
        _beside(closed_loop([measured.service.port], measured.subscribed, seconds=seconds)),
    ):
        yield measured.service


@asynccontextmanager
async def _runs(databases: Databases, kind: str, seconds: float) -> AsyncIterator[Service]:
    """Runs of five steps, with a provider that completes each task at once."""
    numbers = itertools.count()
    async with AsyncExitStack() as resources:
        provider = await resources.enter_async_context(serving(lambda _: completed(next(numbers))))
        settings = {"piapi_base_url": provider, "piapi_api_key": KEY, "provider_rate": "100000/s"}
        service = await resources.enter_async_context(ringback(await databases.new(kind), settings))
        requests = itertools.repeat(create_run())
        await resources.enter_async_context(_beside(closed_loop([service.port], requests, seconds=seconds)))
        yield service


PARTS: dict[str, Load] = {"inbound": _inbound, "deliveries": _deliveries, "runs": _runs}


async def profile(part: str, kind: str, seconds: float, graph: Path) -> None:
    """Profile a part twice, one after the other under one load: for the graph, and for the table."""
    with Databases.temporary() as databases:
        async with PARTS[part](databases, kind, 2 * seconds + 3 * _BEGINNING_SECONDS) as service:
            await asyncio.sleep(_BEGINNING_SECONDS)
            await _record(service, "flamegraph", graph, seconds)
            stacks = databases.folder() / "stacks"
            await _record(service, "raw", stacks, seconds)
            _show(stacks.read_text(), f"{part} on {kind}")
    Console().print(f"flame graph: {graph}", highlight=False, soft_wrap=True)


async def _record(service: Service, form: str, file: Path, seconds: float) -> None:
    """Let py-spy write a profile of the process; end the program if it cannot."""
    command = ["record", "--pid", str(service.process.pid), "--format", form, "--output", str(file)]
    command += ["--duration", f"{seconds:.0f}", "--rate", str(_RATE), "--full-filenames"]
    program = Path(sys.executable).parent / "py-spy"
    process = await asyncio.create_subprocess_exec(
        program, *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, words = await process.communicate()
    if process.returncode != 0 or not file.exists():
        raise SystemExit(f"py-spy could not profile the service: {words.decode(errors='replace').strip()}")


def _show(stacks: str, what: str) -> None:
    """Print the functions in which most samples were, and those below which most were."""
    own, below, total = widths(stacks)
    table = Table("itself", "with what it calls", "function", title=f"{what}: {total:,} samples")
    for name, count in own.most_common(_WIDEST):
        table.add_row(f"{count / total:.1%}", f"{below[name] / total:.1%}", name)
    Console(width=None if Console().is_terminal else 140).print(table)


def widths(stacks: str) -> tuple[Counter[str], Counter[str], int]:
    """Return how many samples were in each function itself, and in it or what it calls, and how many there are.

    `stacks` has a line for each stack: the functions from the outermost on, separated by semicolons, and its samples.
    """
    own, below, total = Counter[str](), Counter[str](), 0
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        names = [_short(frame) for frame in stack.split(";")]
        own[names[-1]] += int(count)
        total += int(count)
        for name in set(names):
            below[name] += int(count)
    return own, below, total


def _short(frame: str) -> str:
    """Return a frame with its file's last folders and without its line."""
    name, _, place = frame.partition(" (")
    file = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({'/'.join(file.split('/')[-3:])})" if file else name


@asynccontextmanager
async def _beside(load: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Run a load beside; what it still has to do at the end is not waited for."""
    running = asyncio.create_task(load)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def main() -> None:
    """Profile the part that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profiling", description=__doc__)
    parser.add_argument("part", choices=PARTS, nargs="?", default="inbound", help="the load (default: %(default)s)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="how long each of both samplings takes")
    parser.add_argument("--graph", type=Path, default=Path(".profile.svg"), help="the file for the flame graph")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that SIGTERM cleans up too
    kind = SQLITE if arguments.database == "sqlite" else POSTGRESQL
    uvloop.run(profile(arguments.part, kind, arguments.seconds, arguments.graph))


if __name__ == "__main__":
    main()
