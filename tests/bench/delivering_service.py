"""One service with one subscriber, measured from the inbound webhook to the settled delivery."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.bench.databases import Store
from tests.bench.load import closed_loop, open_loop
from tests.bench.prepared_requests import task_id_of, webhooks
from tests.bench.processes import Service, bare_server, ringback
from tests.bench.seed_rows import MODEL, add_pending_tasks
from tests.bench.subscriber import Subscriber, subscribing

WARM_UP = 300
_UNSUBSCRIBED_MODEL = "kling"


@dataclass(frozen=True)
class FullLoad:
    """What a service did while as many webhooks as it takes were sent. Rates are a second."""

    accepted: float
    """Webhooks that were answered, and so made durable."""
    delivered: float
    """Deliveries that the subscriber received until the last webhook was answered."""
    settled: float
    """Webhooks that were made durable, delivered and settled, with the time that the last of them took."""
    latencies: list[float]
    """Seconds from each webhook to its delivery."""


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
        return (await self.full_load(seconds)).settled

    async def full_load(self, seconds: float) -> FullLoad:
        """Send as many webhooks as the service takes on all connections, for `seconds`; wait until all are settled."""
        return await self._send_until_settled(self.subscribed, seconds)

    async def latencies(self, per_second: float, seconds: float) -> list[float]:
        """Return the seconds from each webhook to its delivery, at a rate of `per_second` for `seconds`."""
        requests = list(islice(self.subscribed, int(per_second * seconds)))
        return await _latencies(self.service, self.subscriber, requests, per_second)

    async def warm_up(self) -> None:
        """Send the first webhooks of both kinds without measuring them."""
        await closed_loop([self.service.port], islice(self.unsubscribed, WARM_UP))
        await self._send_until_settled(islice(self.subscribed, WARM_UP), 60)

    async def _send_until_settled(self, requests: Iterator[bytes], seconds: float) -> FullLoad:
        self.subscriber.reset()
        sent: list[tuple[bytes, float]] = []

        def noted() -> Iterator[bytes]:
            for request in requests:
                sent.append((request, time.perf_counter()))
                yield request

        started = time.perf_counter()
        outcome = (await closed_loop([self.service.port], noted(), seconds=seconds)).expect(b"200")
        delivered = self.subscriber.count / outcome.seconds
        await self.subscriber.received(outcome.answered)
        await self.store.until_settled()
        settled = outcome.answered / (time.perf_counter() - started)
        received_at = self.subscriber.first_received_at
        latencies = [received_at[task_id_of(request)] - at for request, at in sent]
        return FullLoad(outcome.rate, delivered, settled, latencies)


@dataclass
class BareServer:
    """A bare server with a subscriber of its own. It stores nothing, so it accepts the same webhooks again."""

    service: Service
    subscriber: Subscriber

    async def latencies(self, per_second: float, seconds: float) -> list[float]:
        """Return the seconds from each webhook to the subscriber, at a rate of `per_second` for `seconds`."""
        requests = list(webhooks(range(1, int(per_second * seconds) + 1)))
        return await _latencies(self.service, self.subscriber, requests, per_second)


async def _latencies(
    service: Service, subscriber: Subscriber, requests: Sequence[bytes], per_second: float
) -> list[float]:
    subscriber.reset()
    sent = await open_loop(service.port, requests, per_second)
    await subscriber.received(len(requests))
    received_at = subscriber.first_received_at
    return [received_at[task_id_of(request)] - at for request, at in zip(requests, sent, strict=True)]


@asynccontextmanager
async def bare_service(folder: Path) -> AsyncIterator[BareServer]:
    """Run a bare server, warmed up."""
    async with subscribing() as subscriber, bare_server(folder, subscriber.url) as service:
        bare = BareServer(service, subscriber)
        await bare.latencies(WARM_UP, 1)
        yield bare


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
    stores: Sequence[Store], resources: AsyncExitStack, waiting: int, *, unsubscribed: int | None = None
) -> list[DeliveringService]:
    """Run a service on each store, with `waiting` tasks of either kind, until `resources` is closed.

    `unsubscribed` is how many tasks without a subscriber there are, if not as many.
    """
    others = waiting if unsubscribed is None else unsubscribed
    return await asyncio.gather(
        *(
            resources.enter_async_context(delivering_service(store, subscribed=waiting, unsubscribed=others))
            for store in stores
        )
    )
