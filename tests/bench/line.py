"""One service with one subscriber: webhook in, delivered, settled."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from tests.bench.bulk import MODEL, add_waiting
from tests.bench.databases import Store
from tests.bench.load import drive, pace
from tests.bench.material import task_of, webhooks
from tests.bench.processes import Service, ringback
from tests.bench.subscriber import Subscriber, subscribing

WARM_UP = 300
_UNTOLD_MODEL = "kling"


@dataclass
class Line:
    """The subscriber hears of one model alone; each task's webhook is sent once."""

    store: Store
    service: Service
    subscriber: Subscriber
    told: Iterator[bytes]
    untold: Iterator[bytes]

    async def inbound_rate(self, seconds: float) -> float:
        """Return how many webhooks a second are made durable of which nobody is told."""
        return (await drive([self.service.port], self.untold, seconds=seconds)).expect(b"200").rate

    async def rate(self, seconds: float) -> float:
        """Return how many webhooks a second are made durable, delivered and settled, the last one included."""
        return await self._all_told(self.told, seconds)

    async def latencies(self, a_second: float, seconds: float) -> list[float]:
        """Return the seconds from each webhook to its subscriber, at so many a second."""
        self.subscriber.forget()
        requests = list(islice(self.told, int(a_second * seconds)))
        sent = await pace(self.service.port, requests, a_second)
        await self.subscriber.heard(len(requests))
        heard = self.subscriber.moments
        return [heard[task_of(request)] - moment for request, moment in zip(requests, sent, strict=True)]

    async def warm_up(self) -> None:
        """Let the first ones be nobody's figure."""
        await drive([self.service.port], islice(self.untold, WARM_UP))
        await self._all_told(islice(self.told, WARM_UP), 60)

    async def _all_told(self, requests: Iterator[bytes], seconds: float) -> float:
        self.subscriber.forget()
        started = time.perf_counter()
        outcome = (await drive([self.service.port], requests, seconds=seconds)).expect(b"200")
        await self.subscriber.heard(outcome.answered)
        await self.store.settled()
        return outcome.answered / (time.perf_counter() - started)


@asynccontextmanager
async def line(store: Store, *, told: int, untold: int = 0) -> AsyncIterator[Line]:
    """Run a service on the store, with so many tasks of each kind that wait for their webhook."""
    untold_numbers = add_waiting(store, WARM_UP + untold, model=_UNTOLD_MODEL)
    told_numbers = add_waiting(store, WARM_UP + told)
    async with subscribing() as subscriber, ringback(store) as service:
        await service.tell(subscriber.url, filters={"model": MODEL})
        made = Line(store, service, subscriber, webhooks(told_numbers), webhooks(untold_numbers))
        await made.warm_up()
        yield made


async def lines_on(stores: Sequence[Store], resources: AsyncExitStack, waiting: int) -> list[Line]:
    """Run a line on each store, with so many tasks of either kind, until the resources are closed."""
    return await asyncio.gather(
        *(resources.enter_async_context(line(store, told=waiting, untold=waiting)) for store in stores)
    )
