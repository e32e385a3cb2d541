"""`make soak`: ten minutes of everything at once, and nothing may grow. `python -m tests.bench.soak --minutes 10`.

Clients create tasks, list them and follow the stream; the sandbox provider loses a fifth of its webhooks; one
subscriber is well, and two more, who hear of few tasks, fail and hang. It ends with 0 only if memory stayed flat, no
queue grew, every task ended and every delivery was settled.
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
_SHOW_SECONDS = 30.0
_SHOWN_AT_LEAST = 10
_LAST_WORK_SECONDS = 60.0
_RARE_EVERY = 50
_GROWTH = 1.10
_SLACK = 80.0
"""So much more may wait by chance: what comes in a second."""
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
    """What there was at one moment: MiB of all processes, and lengths of queues."""

    memory: float
    tasks_open: float
    tasks_due: float
    deliveries_pending: float
    writes_waiting: float


async def soak(kind: str, minutes: float) -> bool:
    """Run everything for so long; say whether all was well at the end."""
    with Databases.temporary() as databases:
        store = await databases.new(kind)
        async with _services(store) as services, subscribing() as subscriber:
            await services[0].subscribe(subscriber.url, event_types=["task.*"])
            for fault in ("/fail", "/hang"):
                await services[0].subscribe(subscriber.base + fault, filters={"model": RARE_MODEL})
            clients = Clients(services, common=MODEL, rare=RARE_MODEL, rare_every=_RARE_EVERY)
            working = asyncio.create_task(clients.work(minutes * 60))
            samples = await _watch(working, store, services, minutes * 60)
            await working
            _say(f"{dict(clients.answers)}, {subscriber.count:,} deliveries heard, {clients.streamed:,} bytes streamed")
            for status, answer in clients.refusals.items():
                _say(f"{status}: {answer.decode()}")
            verdicts = _judge(samples) | await _last_work(store, clients)
    for what, is_well in verdicts.items():
        _say(f"{'[green]ok[/]  ' if is_well else '[red]NOT[/] '} {what}")
    return all(verdicts.values())


@asynccontextmanager
async def _services(store: Store) -> AsyncIterator[Sequence[Service]]:
    """Run the provider and the service: one process on SQLite, two on PostgreSQL that hear of each other's tasks."""
    ports = [free_port() for _ in range(1 if store.is_sqlite else 2)]
    async with AsyncExitStack() as resources:
        provider = await resources.enter_async_context(sandbox(store.folder, *_PROVIDER))
        settings = {**_SETTINGS, "piapi_base_url": f"http://127.0.0.1:{provider.port}"}
        services = []
        for place, port in enumerate(ports):
            public = f"http://127.0.0.1:{ports[place - 1]}"
            service = ringback(store, {**settings, "public_url": public}, port=port)
            services.append(await resources.enter_async_context(service))
        yield services


async def _watch(
    working: "asyncio.Task[None]", store: Store, services: Sequence[Service], seconds: float
) -> list[Sample]:
    """Take samples while they work; show some."""
    samples: list[Sample] = []
    started = time.monotonic()
    shown = started
    while not working.done():
        samples.append(await _sample(store, services))
        if time.monotonic() - shown >= min(_SHOW_SECONDS, seconds / _SHOWN_AT_LEAST):
            shown = time.monotonic()
            _say(f"{shown - started:4.0f} s  {_shown(samples[-1])}")
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


async def _last_work(store: Store, clients: Clients) -> dict[str, bool]:
    """Let what is under way end, for a bounded time; say whether all did."""
    deadline = time.monotonic() + _LAST_WORK_SECONDS
    while (left := [store.rows(query)[0][0] for query in (_NOT_ENDED, _NOT_SETTLED)]) != [0, 0]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    tasks = store.rows("SELECT count(*) FROM task")[0][0]
    deliveries = store.rows("SELECT count(*) FROM delivery")[0][0]
    return {
        f"every task that was answered is there ({clients.answers['created']:,} of {tasks:,})": (
            0 < clients.answers["created"] <= tasks
        ),
        f"every task ended ({left[0]} of {tasks:,} did not)": left[0] == 0,
        f"every delivery was settled ({left[1]} of {deliveries:,} were not)": left[1] == 0,
    }


def _judge(samples: Sequence[Sample]) -> dict[str, bool]:
    """Compare the last third with the second: the first is for warming up."""
    third = len(samples) // 3
    verdicts = {}
    for field in fields(Sample):
        second, last = (
            statistics.fmean(getattr(sample, field.name) for sample in part)
            for part in (samples[third : 2 * third], samples[2 * third :])
        )
        slack = 0.0 if field.name == "memory" else _SLACK
        verdicts[f"{_name(field.name)}: {second:.1f} in the second third, {last:.1f} in the last"] = (
            last <= second * _GROWTH + slack
        )
    return verdicts


def _shown(sample: Sample) -> str:
    queues = ", ".join(f"{_name(each.name)} {getattr(sample, each.name):.0f}" for each in fields(sample)[1:])
    return f"memory {sample.memory:.1f} MiB, {queues}"


def _name(field: str) -> str:
    return field.replace("_", " ")


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def main() -> None:
    """Soak; end with 0 if all was well."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long the clients work")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it leaves nothing behind
    kind = SQLITE if arguments.database == "sqlite" else POSTGRESQL
    sys.exit(0 if uvloop.run(soak(kind, arguments.minutes)) else 1)


if __name__ == "__main__":
    main()
