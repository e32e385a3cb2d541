"""Inbound webhooks made durable.

They are compared with the same route without storage, with the obvious way to write it (one SQLModel transaction a
request), and with two replicas.
"""

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
"""Pending tasks for one run: more than end in it. If they were too few, the run would only be shorter."""
_PLAIN_WAITING = 2_000
_OF_LIMIT: dict[str, Aim] = {SQLITE: at_least(0.45), POSTGRESQL: at_least(0.28)}
_OF_PLAIN: dict[str, Aim] = {SQLITE: at_least(25), POSTGRESQL: at_least(10)}
_OF_ONE = at_least(1.35)


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
    """What is measured in turn on one kind of database; `two` is a pair of replicas on one PostgreSQL database."""

    kind: str
    ours: Receiver
    plain: Receiver
    two: Receiver | None


async def inbound(context: BenchContext) -> None:
    """Measure how many inbound webhooks a second are made durable."""
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
    nothing.requests = webhooks(range(1, _WAITING + 1))  # it stores nothing, so it accepts the same ones again
    limit = await nothing.rate()
    add("inbound webhooks a second, same route, no storage", "", limit, form="{:,.0f}")
    ours = await each.ours.rate()
    add("inbound webhooks made durable a second", kind, ours, form="{:,.0f}")
    add("  against the same route without storage", kind, ours / limit, form="{:.0%}", aim=_OF_LIMIT[kind])
    if each.two is not None:
        both = await each.two.rate()
        add("  two replicas against one", kind, both / ours, form="{:.2f} ×", aim=_OF_ONE)
    plain = await each.plain.rate(_PLAIN_SECONDS)
    add("  against one SQLModel transaction a request", kind, ours / plain, form="{:.1f} ×", aim=_OF_PLAIN[kind])


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
