"""Webhooks made durable: against the same route that stores nothing, the plain way, and with a second replica."""

import asyncio
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
"""Tasks for one run: more than are ended in it. Where they are too few, the run is only shorter."""
_PLAIN_WAITING = 2_000
_OF_LIMIT: dict[str, Aim] = {SQLITE: at_least(0.45), POSTGRESQL: at_least(0.28)}
_OF_PLAIN: dict[str, Aim] = {SQLITE: at_least(25), POSTGRESQL: at_least(10)}
_OF_ONE = at_least(1.35)


@dataclass
class Receiver:
    """Who takes webhooks on one database: one process or several, each task's webhook once."""

    services: Sequence[Service]
    requests: Iterator[bytes]

    async def rate(self, seconds: float = _SECONDS) -> float:
        """Return how many webhooks a second were made durable."""
        ports = [service.port for service in self.services]
        return (await closed_loop(ports, self.requests, seconds=seconds)).expect(b"200").rate

    async def warm_up(self) -> None:
        """Let the first ones be nobody's figure."""
        few = [next(self.requests) for _ in range(_WARM_UP)]
        (await closed_loop([service.port for service in self.services], few)).expect(b"200")


@dataclass
class _Compared:
    """What is measured in turn; `two` are two replicas on one database, where there can be two."""

    kind: str
    ours: Receiver
    plain: Receiver
    two: Receiver | None


async def inbound(context: BenchContext) -> None:
    """Measure webhooks made durable."""
    async with AsyncExitStack() as resources:

        async def begin(kind: str, what: str, processes: int = 1) -> Receiver:
            return await resources.enter_async_context(_receiving(context, kind, what, processes))

        nothing, one, one_plain, other, other_plain, two = await asyncio.gather(
            begin(SQLITE, "limit"),
            begin(SQLITE, "ringback"),
            begin(SQLITE, "plain"),
            begin(POSTGRESQL, "ringback"),
            begin(POSTGRESQL, "plain"),
            begin(POSTGRESQL, "ringback", processes=2),
        )
        compared = (_Compared(SQLITE, one, one_plain, None), _Compared(POSTGRESQL, other, other_plain, two))
        for _ in context.runs("inbound"):
            for each in compared:
                await _measure(context, nothing, each)


async def _measure(context: BenchContext, nothing: Receiver, each: _Compared) -> None:
    add, kind = context.report.add, each.kind
    nothing.requests = webhooks(range(1, _WAITING + 1))  # it stores nothing: so it may take the same ones again
    limit = await nothing.rate()
    add("the same route, nothing stored, a second", "", limit, form="{:,.0f}")
    ours = await each.ours.rate()
    add("inbound webhooks made durable, a second", kind, ours, form="{:,.0f}")
    add("  of the same route, nothing stored", kind, ours / limit, form="{:.0%}", aim=_OF_LIMIT[kind])
    if each.two is not None:
        both = await each.two.rate()
        add("  two replicas, of one", kind, both / ours, form="{:.2f} ×", aim=_OF_ONE)
    plain = await each.plain.rate(_PLAIN_SECONDS)
    add("  of one SQLModel transaction a request", kind, ours / plain, form="{:.1f} ×", aim=_OF_PLAIN[kind])


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
