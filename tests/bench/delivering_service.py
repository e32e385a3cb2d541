"""One service with one subscriber: webhook in, delivered, settled."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from tests.bench.databases import Store
from tests.bench.load import closed_loop, open_loop
from tests.bench.prepared_requests import task_id_of, webhooks
from tests.bench.processes import Service, ringback
from tests.bench.seed_rows import MODEL, add_pending_tasks
from tests.bench.subscriber import Subscriber, subscribing

WARM_UP = 300
_UNTOLD_MODEL = "kling"


@dataclass
class DeliveringService:
    """The subscriber hears of one model alone; each task's webhook is sent once."""

    store: Store
    service: Service
    subscriber: Subscriber
    told: Iterator[bytes]
    untold: Iterator[bytes]

    async def inbound_rate(self, seconds: float) -> float:
        """Return how many webhooks a second are made durable of which nobody is told."""
        return (await closed_loop([self.service.port], self.untold, seconds=seconds)).expect(b"200").rate

    async def rate(self, seconds: float) -> float:
        """Return how many webhooks a second are made durable, delivered and settled, the last one included."""
        return await self._all_told(self.told, seconds)

    async def latencies(self, per_second: float, seconds: float) -> list[float]:
        """Return the seconds from each webhook to its subscriber, at so many a second."""
        self.subscriber.reset()
        requests = list(islice(self.told, int(per_second * seconds)))
        sent = await open_loop(self.service.port, requests, per_second)
        await self.subscriber.received(len(requests))
        heard = self.subscriber.first_received_at
        return [heard[task_id_of(request)] - moment for request, moment in zip(requests, sent, strict=True)]

    async def warm_up(self) -> None:
        """Let the first ones be nobody's figure."""
        await closed_loop([self.service.port], islice(self.untold, WARM_UP))
        await self._all_told(islice(self.told, WARM_UP), 60)

    async def _all_told(self, requests: Iterator[bytes], seconds: float) -> float:
        self.subscriber.reset()
        started = time.perf_counter()
        outcome = (await closed_loop([self.service.port], requests, seconds=seconds)).expect(b"200")
        await self.subscriber.received(outcome.answered)
        await self.store.until_settled()
        return outcome.answered / (time.perf_counter() - started)


@asynccontextmanager
async def delivering_service(store: Store, *, told: int, untold: int = 0) -> AsyncIterator[DeliveringService]:
    """Run a service on the store, with so many tasks of each kind that wait for their webhook."""
    untold_numbers = add_pending_tasks(store, WARM_UP + untold, model=_UNTOLD_MODEL)
    told_numbers = add_pending_tasks(store, WARM_UP + told)
    async with subscribing() as subscriber, ringback(store) as service:
        await service.subscribe(subscriber.url, filters={"model": MODEL})
        made = DeliveringService(store, service, subscriber, webhooks(told_numbers), webhooks(untold_numbers))
        await made.warm_up()
        yield made


async def delivering_services(
    stores: Sequence[Store], resources: AsyncExitStack, waiting: int
) -> list[DeliveringService]:
    """Run a line on each store, with so many tasks of either kind, until the resources are closed."""
    return await asyncio.gather(
        *(resources.enter_async_context(delivering_service(store, told=waiting, untold=waiting)) for store in stores)
    )
