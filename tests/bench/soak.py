"""Run a mixed load for some minutes and check that neither memory nor a queue grows.

Clients create tasks, list them and follow the stream; the sandbox provider loses a fifth of its webhooks; one
subscriber is healthy, and of two others, which receive few events, one fails and one hangs. The exit status is 0 only
if memory and all queues stayed level, every task ended and every delivery was settled.
"""

import argparse
import asyncio
import logging
import re
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields

import structlog
import uvloop
from rich.console import Console

from tests.bench.clients import Clients
from tests.bench.databases import POSTGRESQL, SQLITE, Databases, Store
from tests.bench.processes import Service, free_port, ringback, sandbox
from tests.bench.seed_rows import MODEL, RARE_MODEL
from tests.bench.subscriber import subscribing

_SAMPLE_SECONDS = 2.0
_PRINT_SECONDS = 30.0
_PRINTED_AT_LEAST = 10
_DRAIN_SECONDS = 60.0
_RARE_EVERY = 50
_ALLOWED_GROWTH = 1.10
_SLACK = 80.0
"""How much longer a queue may be by chance: about what arrives in a second."""
_PROVIDER = ("--lose-share", "0.2", "--duration", "0.5", "--webhook-retry-seconds", "1")
_SETTINGS = {
    "piapi_api_key": "any-key-will-do",
    "provider_rate": "500/s",
    "poll_first_seconds": "2",
    "poll_max_seconds": "10",
    "retry_schedule": "0,1,2",
    "delivery_timeout_seconds": "0.5",
}
_OPEN_TASKS = "SELECT count(*) FROM task WHERE due_at IS NOT NULL"
_DUE_TASKS = "SELECT count(*) FROM task WHERE due_at < {now} AND NOT leased"
_PENDING = "SELECT count(*) FROM delivery WHERE due_at IS NOT NULL"
_NOT_ENDED = "SELECT count(*) FROM task WHERE status NOT IN ('completed', 'failed', 'cancelled')"
_NOT_SETTLED = "SELECT count(*) FROM delivery WHERE settled_at IS NULL"
_WAITING = re.compile(rb"^ringback_writer_waiting (\S+)$", re.MULTILINE)
console = Console()


@dataclass(frozen=True)
class Sample:
    """The state at one moment: the memory of all service processes in MiB, and the lengths of queues."""

    memory: float
    tasks_open: float
    tasks_due: float
    deliveries_pending: float
    writes_waiting: float


async def soak(kind: str, minutes: float) -> bool:
    """Run the load for `minutes` on one kind of database; return whether all checks passed."""
    with Databases.temporary() as databases:
        store = await databases.new(kind)
        async with _services(store) as services, subscribing() as subscriber:
            await services[0].subscribe(subscriber.url, event_types=["task.*"])
            for fault in ("/fail", "/hang"):
                await services[0].subscribe(subscriber.base + fault, filters={"model": RARE_MODEL})
            clients = Clients(services, common=MODEL, rare=RARE_MODEL, rare_every=_RARE_EVERY)
            working = asyncio.create_task(clients.run(minutes * 60))
            samples = await _watch(working, store, services, minutes * 60)
            await working
            received = f"{subscriber.count:,} deliveries received, {clients.streamed:,} bytes streamed"
            _print(f"{dict(clients.answers)}, {received}")
            for status, answer in clients.refusals.items():
                _print(f"{status}: {answer.decode()}")
            checks = _compare_thirds(samples) | await _drain(store, clients)
    for what, has_passed in checks.items():
        _print(f"{'[green]ok[/]    ' if has_passed else '[red]FAILED[/]'} {what}")
    return all(checks.values())


@asynccontextmanager
async def _services(store: Store) -> AsyncIterator[Sequence[Service]]:
    """Run the provider and the service: one process on SQLite, two on PostgreSQL.

    Each of the two names the other in its public URL, so that it receives the webhooks of the other's tasks.
    """
    ports = [free_port() for _ in range(1 if store.is_sqlite else 2)]
    async with AsyncExitStack() as resources:
        provider = await resources.enter_async_context(sandbox(store.folder, *_PROVIDER))
        settings = {**_SETTINGS, "piapi_base_url": f"http://127.0.0.1:{provider.port}"}
        services = []
        for index, port in enumerate(ports):
            public = f"http://127.0.0.1:{ports[index - 1]}"
            service = ringback(store, {**settings, "public_url": public}, port=port)
            services.append(await resources.enter_async_context(service))
        yield services


async def _watch(
    working: "asyncio.Task[None]", store: Store, services: Sequence[Service], seconds: float
) -> list[Sample]:
    """Take samples while the clients work; print some of them."""
    samples: list[Sample] = []
    started = time.monotonic()
    printed = started
    while not working.done():
        samples.append(await _sample(store, services))
        if time.monotonic() - printed >= min(_PRINT_SECONDS, seconds / _PRINTED_AT_LEAST):
            printed = time.monotonic()
            _print(f"{printed - started:4.0f} s  {_described(samples[-1])}")
        await asyncio.wait([working], timeout=_SAMPLE_SECONDS)
    return samples


async def _sample(store: Store, services: Sequence[Service]) -> Sample:
    waiting = 0.0
    for service in services:
        _, metrics = await service.exchange("GET", "/metrics")
        found = _WAITING.search(metrics)
        waiting += float(found[1]) if found else 0.0
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now')" if store.is_sqlite else "now()"
    open_, due, pending = (store.rows(query.format(now=now))[0][0] for query in (_OPEN_TASKS, _DUE_TASKS, _PENDING))
    return Sample(sum(service.resident_mib() for service in services), open_, due, pending, waiting)


async def _drain(store: Store, clients: Clients) -> dict[str, bool]:
    """Wait until all tasks have ended and all deliveries are settled, for a bounded time; return the checks."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while (left := [store.rows(query)[0][0] for query in (_NOT_ENDED, _NOT_SETTLED)]) != [0, 0]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    tasks = store.rows("SELECT count(*) FROM task")[0][0]
    deliveries = store.rows("SELECT count(*) FROM delivery")[0][0]
    return {
        f"every acknowledged task is stored ({clients.answers['created']:,} acknowledged, {tasks:,} stored)": (
            0 < clients.answers["created"] <= tasks
        ),
        f"every task ended ({left[0]} of {tasks:,} did not)": left[0] == 0,
        f"every delivery was settled ({left[1]} of {deliveries:,} were not)": left[1] == 0,
    }


def _compare_thirds(samples: Sequence[Sample]) -> dict[str, bool]:
    """Compare the means of the last and the second third of the samples; the first third is the warm-up."""
    third = len(samples) // 3
    checks = {}
    for field in fields(Sample):
        second, last = (
            statistics.fmean(getattr(sample, field.name) for sample in part)
            for part in (samples[third : 2 * third], samples[2 * third :])
        )
        slack = 0.0 if field.name == "memory" else _SLACK
        checks[f"{_name(field.name)}: {second:.1f} in the second third, {last:.1f} in the last"] = (
            last <= second * _ALLOWED_GROWTH + slack
        )
    return checks


def _described(sample: Sample) -> str:
    queues = ", ".join(f"{_name(each.name)} {getattr(sample, each.name):.0f}" for each in fields(sample)[1:])
    return f"memory {sample.memory:.1f} MiB, {queues}"


def _name(field: str) -> str:
    return field.replace("_", " ")


def _print(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the load that the command line describes; exit with 0 if all checks passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10, help="how long the clients send requests (default: %(default)s)"
    )
    parser.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite", help="the database (default: %(default)s)"
    )
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that SIGTERM cleans up too
    kind = SQLITE if arguments.database == "sqlite" else POSTGRESQL
    sys.exit(0 if uvloop.run(soak(kind, arguments.minutes)) else 1)


if __name__ == "__main__":
    main()
