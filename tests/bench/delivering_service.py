"""One service with one subscriber, measured from the inbound webhook to the settled delivery."""

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
_UNSUBSCRIBED_MODEL = "kling"


@dataclass
class DeliveringService:
    """A running service whose subscriber subscribes to one model only. Each task's webhook is sent once.

    `subscribed` has the webhooks for tasks of that model, `unsubscribed` those for tasks without a subscriber.
    """

    store: Store
    service: Service
    subscriber: Subscriber
    subscribed: Iterator[bytes]
    unsubscribed: Iterator[bytes]

    async def inbound_rate(self, seconds: float) -> float:
        """Return how many webhooks a second are made durable when none leads to a delivery."""
        return (await closed_loop([self.service.port], self.unsubscribed, seconds=seconds)).expect(b"200").rate

    async def delivery_rate(self, seconds: float) -> float:
        """Return how many webhooks a second are made durable, delivered and settled, the last one included."""
        return await self._send_until_settled(self.subscribed, seconds)

    async def latencies(self, per_second: float, seconds: float) -> list[float]:
        """Return the seconds from each webhook to its delivery, at a rate of `per_second` for `seconds`."""
        self.subscriber.reset()
        requests = list(islice(self.subscribed, int(per_second * seconds)))
        sent = await open_loop(self.service.port, requests, per_second)
        await self.subscriber.received(len(requests))
        received_at = self.subscriber.first_received_at
        return [received_at[task_id_of(request)] - sent_at for request, sent_at in zip(requests, sent, strict=True)]

    async def warm_up(self) -> None:
        """Send the first webhooks of both kinds without measuring them."""
        await closed_loop([self.service.port], islice(self.unsubscribed, WARM_UP))
        await self._send_until_settled(islice(self.subscribed, WARM_UP), 60)

    async def _send_until_settled(self, requests: Iterator[bytes], seconds: float) -> float:
        self.subscriber.reset()
        started = time.perf_counter()
        outcome = (await closed_loop([self.service.port], requests, seconds=seconds)).expect(b"200")
        await self.subscriber.received(outcome.answered)
        await self.store.until_settled()
        return outcome.answered / (time.perf_counter() - started)


@asynccontextmanager
async def delivering_service(
    store: Store, *, subscribed: int, unsubscribed: int = 0
) -> AsyncIterator[DeliveringService]:
    """Run a service on the store with that many pending tasks of each kind, and those for the warm-up."""
    unsubscribed_numbers = add_pending_tasks(store, WARM_UP + unsubscribed, model=_UNSUBSCRIBED_MODEL)
    subscribed_numbers = add_pending_tasks(store, WARM_UP + subscribed)
    async with subscribing() as subscriber, ringback(store) as service:
        await service.subscribe(subscriber.url, filters={"model": MODEL})
        delivering = DeliveringService(
            store, service, subscriber, webhooks(subscribed_numbers), webhooks(unsubscribed_numbers)
        )
        await delivering.warm_up()
        yield delivering


async def delivering_services(
    stores: Sequence[Store], resources: AsyncExitStack, waiting: int
) -> list[DeliveringService]:
    """Run a service on each store, with `waiting` tasks of either kind, until `resources` is closed."""
    return await asyncio.gather(
        *(
            resources.enter_async_context(delivering_service(store, subscribed=waiting, unsubscribed=waiting))
            for store in stores
        )
    )
