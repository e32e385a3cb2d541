"""Inbound webhooks made durable.

They are compared with the same route without storage, with the obvious way to write it (one SQLModel transaction a
request), and with two and four replicas on one PostgreSQL database.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.bench.context import BenchContext
from tests.bench.databases import POSTGRESQL, SQLITE, Store
from tests.bench.load import closed_loop
from tests.bench.prepared_requests import webhooks
from tests.bench.processes import Service, comparison_server, ringback
from tests.bench.report import Aim, at_least
from tests.bench.seed_rows import add_pending_tasks

_SECONDS = 1.3
_PLAIN_SECONDS = 1.0
_WARM_UP = 300
_WAITING = 15_000
"""Pending tasks for one run: more than end in it. If they were too few, the run would only be shorter."""
_PLAIN_WAITING = 2_000
_OF_LIMIT: dict[str, Aim] = {SQLITE: at_least(0.70), POSTGRESQL: at_least(0.55)}
_OF_PLAIN: dict[str, Aim] = {SQLITE: at_least(25), POSTGRESQL: at_least(10)}
_OF_ONE = {2: at_least(1.6), 4: at_least(1.8)}
_NUMBERS = {2: "two", 4: "four"}


@dataclass
class Receiver:
    """The services that receive webhooks on one database, and the webhooks: each task's is sent once."""

    services: Sequence[Service]
    requests: Iterator[bytes]

    async def rate(self, seconds: float = _SECONDS) -> float:
        """Return how many webhooks a second are answered, and so made durable."""
        ports = [service.port for service in self.services]
        return (await closed_loop(ports, self.requests, seconds=seconds)).expect(b"200").rate

    async def warm_up(self) -> None:
        """Send the first webhooks without measuring them."""
        few = [next(self.requests) for _ in range(_WARM_UP)]
        (await closed_loop([service.port for service in self.services], few)).expect(b"200")


@dataclass
class _Compared:
    """What is measured in turn on one kind of database; `replicas` are several services on one database."""

    kind: str
    ours: Receiver
    plain: Receiver
    replicas: Sequence[Receiver]


async def inbound(context: BenchContext) -> None:
    """Measure how many inbound webhooks a second are made durable."""
    async with AsyncExitStack() as resources:

        async def begin(kind: str, what: str, processes: int = 1) -> Receiver:
            return await resources.enter_async_context(_receiving(context, kind, what, processes))

        nothing, one, one_plain, other, other_plain, *replicas = await asyncio.gather(
            begin(SQLITE, "limit"),
            begin(SQLITE, "ringback"),
            begin(SQLITE, "plain"),
            begin(POSTGRESQL, "ringback"),
            begin(POSTGRESQL, "plain"),
            *(begin(POSTGRESQL, "ringback", processes=count) for count in _OF_ONE),
        )
        compared = (_Compared(SQLITE, one, one_plain, ()), _Compared(POSTGRESQL, other, other_plain, replicas))
        for _ in context.runs("inbound"):
            for each in compared:
                await _measure(context, nothing, each)


async def _measure(context: BenchContext, nothing: Receiver, each: _Compared) -> None:
    add, kind = context.report.add, each.kind
    nothing.requests = webhooks(range(1, _WAITING + 1))  # it stores nothing, so it accepts the same ones again
    limit = await nothing.rate()
    add("inbound webhooks a second, same route, no storage", "", limit, form="{:,.0f}")
    ours = await each.ours.rate()
    add("inbound webhooks made durable a second", kind, ours, form="{:,.0f}")
    add("  against the same route without storage", kind, ours / limit, form="{:.0%}", aim=_OF_LIMIT[kind])
    for replicas in each.replicas:
        await _measure_replicas(context, replicas, ours)
    plain = await each.plain.rate(_PLAIN_SECONDS)
    add("  against one SQLModel transaction a request", kind, ours / plain, form="{:.1f} ×", aim=_OF_PLAIN[kind])


async def _measure_replicas(context: BenchContext, replicas: Receiver, of_one: float) -> None:
    """Measure several replicas against one, and how much of the cores PostgreSQL has meanwhile: they get the rest."""
    add, count = context.report.add, len(replicas.services)
    before, started = context.databases.postgresql_cpu_seconds(), time.perf_counter()
    together = await replicas.rate()
    used = context.databases.postgresql_cpu_seconds() - before
    cores = used / (time.perf_counter() - started)
    name = f"  {_NUMBERS[count]} replicas against one"
    add(name, POSTGRESQL, together / of_one, form="{:.2f} ×", aim=_OF_ONE[count])
    add(f"  with {_NUMBERS[count]}: processor seconds of PostgreSQL a second", POSTGRESQL, cores, form="{:.2f}")


@asynccontextmanager
async def _receiving(context: BenchContext, kind: str, what: str, processes: int) -> AsyncIterator[Receiver]:
    store = await context.databases.new(kind)
    each = _PLAIN_WAITING if what == "plain" else _WAITING
    numbers = add_pending_tasks(store, _WARM_UP + each * context.run_count)
    async with AsyncExitStack() as resources:
        services = await asyncio.gather(
            *(resources.enter_async_context(_serving(what, store)) for _ in range(processes))
        )
        receiver = Receiver(services, webhooks(numbers))
        await receiver.warm_up()
        yield receiver
    context.databases.drop(store)


@asynccontextmanager
async def _serving(what: str, store: Store) -> AsyncIterator[Service]:
    async with ringback(store) if what == "ringback" else comparison_server(what, store) as service:
        yield service
