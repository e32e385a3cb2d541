"""The dispatcher: a lane for each subscription, so that a slow one delays no other.

What the writer commits comes here already leased and needs no claim. What does not fit in memory, waits for a
retry or was left by a process that died is claimed from the table.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta

from receiver.clock import utc_now
from receiver.outbound.deliver import Deliverer, Parcel
from receiver.storage.deliveries import give_back
from receiver.storage.transaction import LeasedDelivery
from receiver.storage.writer import Writer
from receiver.telemetry import get_logger
from receiver.tracking.announce import Alarm

log = get_logger("workers.dispatch")

LANE_CAPACITY = 1000
CAPACITY = 5000
IN_FLIGHT_PER_LANE = 32
_AT_ONCE = 100
_LOOK_SECONDS = 1.0


def lease_seconds(timeout: float) -> float:
    """Return how long a delivery is leased, for attempts of at most `timeout` seconds."""
    return 3 * timeout + 30


class _Lane:
    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[LeasedDelivery] = deque()
        self.running = 0

    def __len__(self) -> int:
        return len(self.waiting) + self.running


class LaneDispatcher:
    """Sends deliveries, each lane at its own pace. `timeout` is that of one attempt, in seconds."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._lanes: dict[int, _Lane] = {}
        self._held = 0
        self._wake = asyncio.Event()
        self._alarm = Alarm()
        self._attempts: set[asyncio.Task[None]] = set()

    def connect(self, writer: Writer, deliverer: Deliverer) -> None:
        """Say through whom it sends. Apart from the constructor, for the writer's own handlers need it first."""
        self._writer = writer
        self._deliverer = deliverer

    def room(self, subscription_id: int) -> bool:
        """Say whether one more delivery for this subscription can be taken in memory now."""
        lane = self._lanes.get(subscription_id)
        return self._held < CAPACITY and (lane is None or len(lane) < LANE_CAPACITY)

    def hand_over(self, deliveries: Sequence[LeasedDelivery]) -> None:
        """Take deliveries that are leased to this process."""
        for delivery in deliveries:
            self._lanes.setdefault(delivery.subscription_id, _Lane()).waiting.append(delivery)
        self._held += len(deliveries)
        self._wake.set()

    def look(self) -> None:
        """There is a delivery in the table that nobody holds."""
        self._alarm.set(utc_now())

    async def run(self) -> None:
        """Send for ever: what is in the lanes, and what is claimed from the table."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send())
            group.create_task(self._claim())

    async def drain(self, seconds: float) -> None:
        """Finish the attempts under way, `seconds` at most, and give back what was not begun."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)
        unsent = [delivery for lane in self._lanes.values() for delivery in lane.waiting]
        self._lanes.clear()
        if unsent:
            await self._writer.run(lambda tx: give_back(tx, unsent, utc_now()), bounded=False)

    async def _send(self) -> None:
        while True:
            ready = self._ready()
            if not ready:
                self._wake.clear()
                await self._wake.wait()
                continue
            parcels: list[Parcel] = []
            try:
                parcels = await self._deliverer.prepare(ready)
            finally:
                self._drop(ready, kept={parcel.lease.id for parcel in parcels})
            for parcel in parcels:
                attempt = asyncio.create_task(self._attempt(parcel))
                self._attempts.add(attempt)
                attempt.add_done_callback(self._attempts.discard)

    def _ready(self) -> list[LeasedDelivery]:
        """Take from each lane in turn what may begin now."""
        ready: list[LeasedDelivery] = []
        latest_start = utc_now() + timedelta(seconds=self._timeout + 5)
        for key in list(self._lanes):
            lane = self._lanes[key]
            while lane.waiting and lane.running < IN_FLIGHT_PER_LANE and len(ready) < _AT_ONCE:
                delivery = lane.waiting.popleft()
                if delivery.lease_until < latest_start:  # it would outlive its lease; it is claimed again
                    self._held -= 1
                    continue
                lane.running += 1
                ready.append(delivery)
            # The lane goes to the back of the queue: those behind it have their turn next.
            del self._lanes[key]
            if len(lane):
                self._lanes[key] = lane
        return ready

    def _drop(self, ready: Sequence[LeasedDelivery], kept: set[int]) -> None:
        for delivery in ready:
            if delivery.id not in kept:
                self._release(delivery)

    def _release(self, delivery: LeasedDelivery) -> None:
        self._held -= 1
        lane = self._lanes.get(delivery.subscription_id)
        if lane is not None:
            lane.running -= 1
            if not len(lane):
                del self._lanes[delivery.subscription_id]
        self._wake.set()

    async def _attempt(self, parcel: Parcel) -> None:
        try:
            settlement = await self._deliverer.attempt(parcel)
            if settlement.due_at is not None:
                self._alarm.set(settlement.due_at)
        except Exception as error:
            # Not settled: the lease runs out, and it is sent again.
            log.error("an attempt was not written down", delivery=parcel.lease.id, exc_info=error)
        finally:
            self._release(parcel.lease)

    async def _claim(self) -> None:
        while True:
            claimed = await self._claim_some()
            if claimed < _AT_ONCE:
                await self._alarm.wait(utc_now(), _LOOK_SECONDS)

    async def _claim_some(self) -> int:
        room = min(CAPACITY - self._held, _AT_ONCE)
        if room <= 0:
            return 0
        full = [key for key, lane in self._lanes.items() if len(lane) >= LANE_CAPACITY]
        now = utc_now()
        lease_until = now + timedelta(seconds=lease_seconds(self._timeout))
        claimed = await self._writer.run(lambda tx: tx.claim_deliveries(now, lease_until, room, full), bounded=False)
        self.hand_over(claimed)
        return len(claimed)
