"""The dispatcher: sends deliveries from one queue per subscription, so that a slow endpoint delays no other.

Organizations take turns, then the subscriptions of each, and none may use more than its share of what all need
(`receiver.domain.endpoint_queues`) or more than its own limits. What exceeds them waits, in memory or in the table.

Most deliveries arrive here already leased, straight after the commit that wrote them, and need no claim. Claimed from
the table are the others: those that do not fit in memory, that wait for a retry or for their turn, or that a process
left behind when it died.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import lru_cache

from receiver.clock import utc_now
from receiver.domain.endpoint_queues import EndpointQueues
from receiver.domain.limit_parts import Part
from receiver.domain.load_shares import LoadShares
from receiver.domain.webhook_parts import WebhookLimits
from receiver.errors import OutcomeUnknown, Unavailable
from receiver.events.after_commit import WakeTimer
from receiver.lease_check import LeaseEnded
from receiver.organization_limits import OrganizationLimits
from receiver.outbound.deliver import Attempted, Deliverer, PreparedDelivery
from receiver.outbound.message import Message
from receiver.outbound.target_url import target_url
from receiver.storage.database import Database
from receiver.storage.deliveries import give_back
from receiver.storage.subscriptions import ENDPOINT_LIMITS
from receiver.storage.transaction import LeasedDelivery, Transaction, Values
from receiver.storage.write_queue import HEAVY
from receiver.telemetry.log import get_logger

log = get_logger("workers.dispatch")

CAPACITY = 20_000
"""The deliveries of all queues together that may be in memory."""
_AT_ONCE = 100
_BYTES_AT_ONCE = 1_000_000
_STARTED_AT_ONCE = 20
"""This many attempts, or bodies of that many bytes, are signed and begun at once: other work waits meanwhile, for 2 to
3 ms. Under full load each turn of the loop takes some milliseconds: with few at once the last of 100 would wait for
many of them."""
_OF_ORGANIZATION_AT_ONCE = 400
"""The most deliveries of one organization in a claim, which are shared by its subscriptions. One alone gets as many
while no endpoint fails: a claim waits for its turn in the writer and for its commit, as long as 100 take to send."""
_LONG_CLAIM_SECONDS = 0.01
_REST = 2
"""After a claim that took long the next one waits this many times as long: the writer has other work too."""
_CLAIM_SECONDS = 1.0
"""The table is claimed from this often even when nothing wakes the dispatcher: a process may have died."""
_LIMITS_AT_ONCE = 100
_LIMITS_SECONDS = 5.0
"""The limits of subscriptions are read again this often, because a client may have changed them."""
_SHARES_SECONDS = 1.0
"""The limits of organizations, and this process's part of every limit, are looked at again this often."""
_SETTLE_RETRY_SECONDS = 1.0
_LEASE_MARGIN_SECONDS = 5
"""Left of a lease after an attempt that takes as long as it may: the time to store its outcome."""


def lease_seconds(timeout: float) -> float:
    """Return how long a delivery is leased, for attempts of at most `timeout` seconds."""
    return 3 * timeout + 30


class DeliveryDispatcher:
    """Sends deliveries, those of each subscription at the rate that its endpoint accepts.

    `timeout` is that of one attempt, in seconds; `connections` is how many attempts may be in flight. `limits_of`
    returns the limits of an organization, `part` how much of the limit of this name this process may use (above 0, at
    most 1), which wants so much of it.
    """

    def __init__(
        self,
        *,
        timeout: float,
        connections: int,
        limits_of: Callable[[int], OrganizationLimits],
        part: Part,
        load_shares: LoadShares,
    ) -> None:
        self._timeout = timeout
        self._limits_of = limits_of
        self._part = part
        self._queues: EndpointQueues[LeasedDelivery] = EndpointQueues(CAPACITY, connections, load_shares)
        self._begun: dict[int, int] = {}
        """For each organization whose limits are set, the attempts that it had begun when they were set last."""
        self._rates: dict[int, float] = {}
        """For the same organizations, how many attempts a second they began lately."""
        self._at_once = _AT_ONCE
        self._claim_took = 0.0
        """How long the last claim took in its transaction, in seconds."""
        self._new: set[int] = set()
        """The keys of subscriptions whose limits have not been read yet."""
        self._limits: dict[int, tuple[WebhookLimits, str]] = {}
        """The limits of subscriptions that have any, of which each process takes a part, and their hosts."""
        self._ordered: set[int] = set()
        """The keys of subscriptions whose deliveries of one task must be sent in order."""
        self._wake = asyncio.Event()
        self._claim_timer = WakeTimer()
        self._attempts: set[asyncio.Task[None]] = set()

    def connect(self, database: Database, deliverer: Deliverer) -> None:
        """Set what it sends with. Apart from the constructor, because the deliverer's settler needs the dispatcher."""
        self._database = database
        self._writer = database.writer
        self._deliverer = deliverer

    def has_room(self, subscription_id: int, organization_id: int) -> bool:
        """Return whether memory has room for one more delivery to this subscription of this organization."""
        return self._queues.has_capacity(subscription_id, organization_id)

    def use_of(self, organization_id: int) -> dict[str, float]:
        """Return what an organization uses in this process of the limits of deliveries, by their names."""
        rate = round(self._rates.get(organization_id, 0.0), 1)
        return {
            "deliveries_in_flight": self._queues.usage(organization_id).in_flight,
            "deliveries_per_second": rate,
        }

    def hand_over(self, deliveries: Sequence[LeasedDelivery]) -> None:
        """Take deliveries that are leased to this process."""
        now = time.monotonic()
        for delivery in deliveries:
            if self._queues.add(delivery.subscription_id, delivery, delivery.organization_id, now):
                self._new.add(delivery.subscription_id)
                if delivery.organization_id not in self._begun:
                    self._set_shares(delivery.organization_id, now)
        self._wake.set()

    def wake(self) -> None:
        """Claim deliveries soon: the table has one that is due and that no process has leased."""
        self._claim_timer.set(utc_now())

    async def run(self) -> None:
        """Send until cancelled: the deliveries in the queues, and those claimed from the table."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send())
            group.create_task(self._claim())
            group.create_task(self._refresh_limits())
            group.create_task(self._refresh_shares())

    async def drain(self, seconds: float) -> None:
        """Finish the attempts in flight, `seconds` at most, and end the leases of deliveries that were not sent."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)
        await self._give_back(self._queues.clear())

    async def _send(self) -> None:
        while True:
            if self._new:
                await self._read_limits(self._new)
            ready = self._queues.take(time.monotonic(), self._at_once)
            if ready:
                await self._start(await self._prepare(ready))
            else:
                await self._pause()

    async def _start(self, prepared: Sequence[PreparedDelivery]) -> None:
        """Begin attempts, a few at once; take fewer deliveries the next time while their bodies are large."""
        waiting = deque(prepared)
        total = size = count = 0
        try:
            while waiting:
                delivery = waiting.popleft()
                self._begin(delivery)
                length = len(delivery.message.body) if isinstance(delivery.message, Message) else 0
                total, size, count = total + length, size + length, count + 1
                if size > _BYTES_AT_ONCE or count >= _STARTED_AT_ONCE:
                    await asyncio.sleep(0)
                    size = count = 0
        finally:  # when cancelled: `drain` ends the leases of those that wait
            for delivery in reversed(waiting):
                self._queues.put_back(delivery.lease.subscription_id, delivery.lease, time.monotonic())
        if total > _BYTES_AT_ONCE:
            self._at_once = max(1, len(prepared) * _BYTES_AT_ONCE // total)
        elif self._at_once < _AT_ONCE:
            self._at_once = min(2 * self._at_once, _AT_ONCE)

    async def _pause(self) -> None:
        """Wait until a delivery arrives or an attempt ends, or until the next queue's pause is over."""
        self._wake.clear()
        now = time.monotonic()
        ready_at = self._queues.next_ready_at(now)
        if ready_at is None:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(ready_at - now):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _prepare(self, ready: Sequence[LeasedDelivery]) -> list[PreparedDelivery]:
        """Prepare deliveries that were taken from their queues; return those that may be sent.

        If that fails or is cancelled, they go back to their queues: at a stop `drain` ends their leases, else they wait
        for the database.
        """
        latest = utc_now() + timedelta(seconds=self._timeout + _LEASE_MARGIN_SECONDS)
        held = [delivery for delivery in ready if delivery.lease_until >= latest]
        prepared: list[PreparedDelivery] = []
        try:
            if len(held) < len(ready):
                await self._give_up([delivery for delivery in ready if delivery.lease_until < latest])
            prepared = await self._deliverer.prepare(held) if held else []
        except (asyncio.CancelledError, Unavailable):
            for delivery in reversed(held):
                self._queues.put_back(delivery.subscription_id, delivery, time.monotonic())
            held = []
            raise
        finally:
            ids = {each.lease.id for each in prepared}
            for delivery in held:
                if delivery.id not in ids:
                    self._queues.abandoned(delivery.subscription_id, time.monotonic())
        return prepared

    async def _give_up(self, late: Sequence[LeasedDelivery]) -> None:
        """Give back deliveries whose leases could end during an attempt: they waited for long, for a rate perhaps.

        Any process may claim them again at once, with the same number of attempts.
        """
        for delivery in late:
            self._queues.abandoned(delivery.subscription_id, time.monotonic())
        await self._give_back(late)
        self.wake()

    def _begin(self, delivery: PreparedDelivery) -> None:
        attempt = asyncio.create_task(self._attempt(delivery))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)

    async def _attempt(self, delivery: PreparedDelivery) -> None:
        key = delivery.lease.subscription_id
        was_full = self._queues.is_full(key)
        try:
            attempted = await self._deliverer.attempt(delivery)
        except Unavailable as error:
            log.warning(
                "delivery not sent", delivery_id=delivery.uid, attempt=delivery.lease.attempt, error=error.message
            )
            self._queues.abandoned(key, time.monotonic())
            self._wake.set()
            await self._give_back([delivery.lease])
            self.wake()
            return
        except LeaseEnded:  # this process was frozen: any process claims the delivery again
            log.warning("delivery not sent: its lease ended", delivery_id=delivery.uid, attempt=delivery.lease.attempt)
            self._queues.abandoned(key, time.monotonic())
            self._wake.set()
            self.wake()
            return
        except BaseException:
            self._queues.abandoned(key, time.monotonic())  # its lease runs out, and it is sent again
            self._wake.set()
            raise
        try:
            await self._attempted(delivery, attempted, was_full=was_full)
        finally:
            self._queues.settled(delivery.lease.organization_id, time.monotonic())
            self._wake.set()

    async def _attempted(self, delivery: PreparedDelivery, attempted: Attempted, *, was_full: bool) -> None:
        """Report an attempt that was made to its queue, and store its outcome."""
        key = delivery.lease.subscription_id
        is_ordered = key in self._ordered
        if attempted.gone:  # stored first, so that the next delivery finds the subscription disabled
            await self._settle(delivery, attempted)
        # The subscriber has answered, so its queue may send the next delivery while this outcome is stored.
        excess = self._leave_queue(key, attempted)
        self._wake.set()
        if was_full and attempted.delivered and not is_ordered:
            self.wake()  # there was no room, so deliveries may wait in the table
        if not attempted.gone:
            await self._settle(delivery, attempted, deferrable=not is_ordered)
        if excess:
            await self._give_back(excess)
        if attempted.settlement.due_at is not None:
            self._claim_timer.set(attempted.settlement.due_at)
        elif is_ordered:
            self.wake()  # the next delivery of the same task may be sent only now

    async def _settle(self, delivery: PreparedDelivery, attempted: Attempted, *, deferrable: bool = False) -> None:
        """Store the outcome of an attempt; try again while the database is unavailable, until the lease ends."""
        while True:
            try:
                await self._deliverer.settle(attempted.settlement, deferrable=deferrable)
            except Unavailable as error:
                if utc_now() < delivery.lease.lease_until:
                    await asyncio.sleep(_SETTLE_RETRY_SECONDS)
                    continue
                # The delivery is sent again when it is claimed.
                log.error(
                    "settling delivery failed",
                    delivery_id=delivery.uid,
                    attempt=delivery.lease.attempt,
                    error_code=error.code,
                    error=str(error),
                )
            except Exception as error:
                log.error(
                    "settling delivery failed", delivery_id=delivery.uid, attempt=delivery.lease.attempt, exc_info=error
                )
            return

    def _leave_queue(self, key: int, attempted: Attempted) -> list[LeasedDelivery]:
        """Report the outcome of an attempt to its queue; return deliveries that the queue may no longer hold."""
        now = time.monotonic()
        if attempted.delivered:
            self._queues.succeeded(key, now)
            return []
        return self._queues.failed(
            key,
            now,
            slow_down=attempted.slow_down,
            retry_after=attempted.retry_after,
            is_answered=attempted.settlement.status_code is not None,
        )

    async def _give_back(self, unsent: Sequence[LeasedDelivery]) -> None:
        """End the leases of deliveries that were not sent, so that any process may claim them at once."""
        if not unsent:
            return
        try:
            await self._writer.run(lambda tx: give_back(tx, unsent, utc_now()), bounded=False)
        except Exception as error:  # the leases run out by themselves
            log.error("ending leases failed", delivery_count=len(unsent), exc_info=error)

    async def _claim(self) -> None:
        while True:
            if not await self._claim_some():
                await self._claim_timer.wait(utc_now(), _CLAIM_SECONDS)

    async def _claim_some(self) -> int:
        """Claim due deliveries for queues that may send, a few for each; return how many were claimed.

        A claim that takes long is followed by a rest, and other writes do not wait for the next one.
        """
        most = _AT_ONCE if self._queues.has_failing() else _OF_ORGANIZATION_AT_ONCE
        if self._queues.free_capacity() < most:
            return 0
        closed, without_room = self._queues.blocked(time.monotonic()), self._queues.without_room()
        now = utc_now()
        lease_until = now + timedelta(seconds=lease_seconds(self._timeout))

        async def work(tx: Transaction) -> list[LeasedDelivery]:
            started = time.monotonic()
            claimed = await tx.claim_deliveries(
                now,
                lease_until,
                most,
                closed,
                of_organization=_OF_ORGANIZATION_AT_ONCE,
                skip_organizations=without_room,
            )
            self._claim_took = time.monotonic() - started
            return claimed

        items = HEAVY if self._claim_took > _LONG_CLAIM_SECONDS else 1
        claiming = asyncio.ensure_future(self._writer.run(work, bounded=False, items=items))
        try:
            await asyncio.shield(claiming)
        except OutcomeUnknown as unknown:  # what is not known to be ours is not sent
            unknown.when_stored(self.hand_over)
            raise
        finally:  # when cancelled too: what was claimed has to reach the queues, where `drain` finds it
            claimed = await claiming
            self.hand_over(claimed)
        if self._claim_took > _LONG_CLAIM_SECONDS:
            await asyncio.sleep(_REST * self._claim_took)
        return len(claimed)

    async def _refresh_limits(self) -> None:
        while True:
            await asyncio.sleep(_LIMITS_SECONDS)
            self._queues.forget_idle(time.monotonic())
            if keys := set(self._queues):
                await self._read_limits(keys)

    async def _read_limits(self, keys: Collection[int]) -> None:
        wanted = tuple(keys)
        for start in range(0, len(wanted), _LIMITS_AT_ONCE):
            piece = wanted[start : start + _LIMITS_AT_ONCE]
            now = time.monotonic()
            for row in await self._database.read_by_keys(ENDPOINT_LIMITS, piece):
                self._set_limits(row["endpoint"], now)
            self._new.difference_update(piece)
            await asyncio.sleep(0)

    def _set_limits(self, row: Values, now: float) -> None:
        if row["id"] in self._queues:
            limits = WebhookLimits(row["max_in_flight"], row["rate_limit"])
            self._limits[row["id"]] = (limits, _host_of(row["endpoint_url"]))
            self._take_part(row["id"], now)
        (self._ordered.add if row["ordered"] else self._ordered.discard)(row["id"])

    async def _refresh_shares(self) -> None:
        while True:
            await asyncio.sleep(_SHARES_SECONDS)
            present, now = self._queues.organizations(), time.monotonic()
            for organization_id in present:
                self._set_shares(organization_id, now)
            for organization_id in self._begun.keys() - set(present):
                del self._begun[organization_id]
                self._rates.pop(organization_id, None)
            for key in list(self._limits):
                self._take_part(key, now)
            self._wake.set()

    def _take_part(self, key: int, now: float) -> None:
        """Set the limits of a queue to this process's part; forget those of a queue that is gone or has none."""
        limits, host = self._limits[key]
        if key in self._queues:
            wanted = max(1, len(self._queues[key]))
            self._queues.set_endpoint(key, limits.part(key, wanted, self._part), host, now)
        if key not in self._queues or not limits.is_limited:
            del self._limits[key]

    def _set_shares(self, organization_id: int, now: float) -> None:
        """Set what an organization may use in this process: its limits, of which other processes have a part too."""
        limits, usage = self._limits_of(organization_id), self._queues.usage(organization_id)
        begun = max(0, usage.begun - self._begun.get(organization_id, 0))  # less if it was forgotten meanwhile
        in_flight, rate = limits.deliveries_in_flight, limits.deliveries_per_second
        if in_flight:
            part = self._part(f"organization-in-flight:{organization_id}", usage.in_flight + usage.waiting)
            in_flight = max(1, int(in_flight * part))
        if rate:
            rate *= self._part(f"organization-deliveries:{organization_id}", begun + usage.waiting)
        self._begun[organization_id], self._rates[organization_id] = usage.begun, begun / _SHARES_SECONDS
        self._queues.set_organization_limits(organization_id, in_flight=in_flight, rate=rate, now=now)


@lru_cache(maxsize=4096)
def _host_of(url: str) -> str:
    """Return the host and port that a URL is sent to."""
    try:
        parts = target_url(url)
    except ValueError:
        return ""
    return f"{parts.host}:{parts.port}".lower()
