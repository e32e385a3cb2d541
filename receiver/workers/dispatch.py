"""The dispatcher: a lane for each subscription, so that a slow one delays no other.

What the writer commits comes here already leased and needs no claim. What does not fit in memory, waits for a
retry or its turn, or was left by a process that died is claimed from the table.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from receiver.clock import utc_now
from receiver.domain.endpoint_queues import DEFAULT_IN_FLIGHT, EndpointQueues, Limits
from receiver.errors import Unavailable
from receiver.events.after_commit import WakeTimer
from receiver.outbound.deliver import Attempted, Deliverer, PreparedDelivery
from receiver.storage.database import Database
from receiver.storage.deliveries import give_back
from receiver.storage.subscriptions import endpoint_limits
from receiver.storage.transaction import LeasedDelivery
from receiver.telemetry import get_logger

log = get_logger("workers.dispatch")

CAPACITY = 20_000
_AT_ONCE = 100
_LOOK_SECONDS = 1.0
_LIMITS_HOLD_SECONDS = 5.0
_SETTLE_AGAIN_SECONDS = 1.0


def lease_seconds(timeout: float) -> float:
    """Return how long a delivery is leased, for attempts of at most `timeout` seconds."""
    return 3 * timeout + 30


class DeliveryDispatcher:
    """Sends deliveries, each lane at its own pace. `timeout` is that of one attempt, in seconds."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._queues: EndpointQueues[LeasedDelivery] = EndpointQueues(CAPACITY)
        self._new: set[int] = set()
        self._ordered: set[int] = set()
        self._wake = asyncio.Event()
        self._claim_timer = WakeTimer()
        self._attempts: set[asyncio.Task[None]] = set()

    def connect(self, database: Database, deliverer: Deliverer) -> None:
        """Say through whom it sends. Apart from the constructor, for the writer's own handlers need it first."""
        self._database = database
        self._writer = database.writer
        self._deliverer = deliverer

    def has_room(self, subscription_id: int) -> bool:
        """Say whether one more delivery for this subscription can be taken in memory now."""
        return self._queues.has_capacity(subscription_id)

    def hand_over(self, deliveries: Sequence[LeasedDelivery]) -> None:
        """Take deliveries that are leased to this process."""
        for delivery in deliveries:
            if self._queues.add(delivery.subscription_id, delivery):
                self._new.add(delivery.subscription_id)
        self._wake.set()

    def wake(self) -> None:
        """There is a delivery in the table that nobody holds."""
        self._claim_timer.set(utc_now())

    async def run(self) -> None:
        """Send for ever: what is in the lanes, and what is claimed from the table."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send())
            group.create_task(self._claim())
            group.create_task(self._keep_limits())

    async def drain(self, seconds: float) -> None:
        """Finish the attempts under way, `seconds` at most, and give back what was not begun."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)
        await self._give_back(self._queues.clear())

    async def _send(self) -> None:
        while True:
            if self._new:
                await self._read_limits(self._new)
            ready = self._queues.take(time.monotonic(), _AT_ONCE)
            if ready:
                await self._begin(ready)
            else:
                await self._pause()

    async def _pause(self) -> None:
        """Wait for news, or until a lane opens by itself."""
        self._wake.clear()
        now = time.monotonic()
        opening = self._queues.next_ready_at(now)
        try:
            async with asyncio.timeout(None if opening is None else opening - now):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _begin(self, ready: Sequence[LeasedDelivery]) -> None:
        latest = utc_now() + timedelta(seconds=self._timeout + 5)
        # One that would outlive its lease is left: it is claimed again, by whoever comes first.
        held = [delivery for delivery in ready if delivery.lease_until >= latest]
        prepared: list[PreparedDelivery] = []
        try:
            prepared = await self._deliverer.prepare(held) if held else []
        except (asyncio.CancelledError, Unavailable):  # at a stop it is given back, else it waits for the database
            for delivery in reversed(ready):
                self._queues.put_back(delivery.subscription_id, delivery)
            ready = ()
            raise
        finally:
            ids = {each.lease.id for each in prepared}
            for delivery in ready:
                if delivery.id not in ids:
                    self._queues.abandoned(delivery.subscription_id)
        for each in prepared:
            attempt = asyncio.create_task(self._attempt(each))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)

    async def _attempt(self, delivery: PreparedDelivery) -> None:
        key = delivery.lease.subscription_id
        was_full = self._queues[key].is_full()
        try:
            attempted = await self._deliverer.attempt(delivery)
        except BaseException:
            self._queues.abandoned(key)  # its lease runs out, and it is sent again
            self._wake.set()
            raise
        is_ordered = key in self._ordered
        if attempted.gone:  # the next one must find it switched off
            await self._settle(attempted, delivery.lease.lease_until)
        # The subscriber has answered: its lane is free for the next one while this is written down.
        excess = self._leave_queue(key, attempted)
        self._wake.set()
        if was_full and attempted.delivered and not is_ordered:
            self.wake()  # something may wait in the table for just this
        if not attempted.gone:
            await self._settle(attempted, delivery.lease.lease_until, deferrable=not is_ordered)
        await self._give_back(excess)
        if attempted.settlement.due_at is not None:
            self._claim_timer.set(attempted.settlement.due_at)
        elif is_ordered:
            self.wake()  # the next one of its task may be sent only now

    async def _settle(self, attempted: Attempted, until: datetime, *, deferrable: bool = False) -> None:
        """Write down what came of an attempt, also when the database is away for a while; `until` ends its lease."""
        while True:
            try:
                await self._deliverer.settle(attempted.settlement, deferrable=deferrable)
            except Unavailable as error:
                if utc_now() < until:
                    await asyncio.sleep(_SETTLE_AGAIN_SECONDS)
                    continue
                log.error("an attempt was not written down, and is made again", reason=error.message)
            except Exception as error:
                log.error("an attempt was not written down", delivery=attempted.settlement.delivery_id, exc_info=error)
            return

    def _leave_queue(self, key: int, attempted: Attempted) -> list[LeasedDelivery]:
        """Say in its lane what came of an attempt; return the deliveries that the lane may hold no longer."""
        if attempted.delivered:
            self._queues.succeeded(key)
            return []
        return self._queues.failed(
            key, time.monotonic(), slow_down=attempted.slow_down, retry_after=attempted.retry_after
        )

    async def _give_back(self, unsent: Sequence[LeasedDelivery]) -> None:
        if not unsent:
            return
        try:
            await self._writer.run(lambda tx: give_back(tx, unsent, utc_now()), bounded=False)
        except Exception as error:
            log.error("leases were not given back, and run out", deliveries=len(unsent), exc_info=error)

    async def _claim(self) -> None:
        while True:
            if not await self._claim_some():
                await self._claim_timer.wait(utc_now(), _LOOK_SECONDS)

    async def _claim_some(self) -> int:
        """Claim what is due for lanes that are open, a few of each; return how many there were."""
        if self._queues.free_capacity() < _AT_ONCE:
            return 0
        closed = self._queues.blocked(time.monotonic())
        now = utc_now()
        lease_until = now + timedelta(seconds=lease_seconds(self._timeout))
        claiming = asyncio.ensure_future(
            self._writer.run(lambda tx: tx.claim_deliveries(now, lease_until, _AT_ONCE, closed), bounded=False)
        )
        try:
            await asyncio.shield(claiming)
        finally:  # at a stop too: what was claimed is to be given back
            claimed = await claiming
            self.hand_over(claimed)
        return len(claimed)

    async def _keep_limits(self) -> None:
        """Read again what subscriptions allow: somebody may have changed it."""
        while True:
            await asyncio.sleep(_LIMITS_HOLD_SECONDS)
            self._queues.forget_idle(time.monotonic())
            if keys := set(self._queues):
                await self._read_limits(keys)

    async def _read_limits(self, keys: Collection[int]) -> None:
        for row in await self._database.read(endpoint_limits(tuple(keys))):
            if row["id"] in self._queues:
                self._queues[row["id"]].limits = Limits(row["max_in_flight"] or DEFAULT_IN_FLIGHT, row["rate_limit"])
            (self._ordered.add if row["ordered"] else self._ordered.discard)(row["id"])
        self._new.difference_update(tuple(keys))
