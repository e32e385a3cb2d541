"""The queues in which deliveries wait: organizations take turns, then the subscriptions of each.

So with k organizations that have something to send, a delivery at the head of its organization waits for at most k - 1
deliveries of others, whether those have one webhook or thousands. By the rule of `receiver.domain.shared_pool`
organizations share the attempts in flight (each holds a connection, and a write until its outcome is stored), the
deliveries in memory, and the attempts in flight to one target host.

No start or end of an attempt looks at all queues: an endpoint that may not start waits where that which it waits for
finds it, its own attempt in flight, its organization's turn, its host, or a time. `now` is in seconds of a monotonic
clock.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Generic, TypeVar

from msgspec import Struct

from receiver.domain.endpoint_queue import EndpointQueue, Limits, Standing
from receiver.domain.load_shares import Load, LoadShares
from receiver.domain.organization_queue import OrganizationQueue
from receiver.domain.shared_pool import HostShare, SharedPool, TargetHost

T = TypeVar("T")

_MOST_CLAIMED = 100
"""An organization with less room in memory than this has none for claims: a claim of a few costs as much as of many."""


class Usage(Struct, frozen=True):
    """What an organization has in flight, what waits in memory, and how many attempts it has begun so far."""

    in_flight: int = 0
    waiting: int = 0
    begun: int = 0


class EndpointQueues(Generic[T]):
    """The queues of all subscriptions, by the subscription's row key.

    `capacity` is how many deliveries all of them may hold together, `connections` how many attempts may be in flight.
    An attempt ends twice: for its endpoint when that has answered, for its organization when that is stored
    (`settled`).
    """

    def __init__(self, capacity: int, connections: int, load_shares: LoadShares) -> None:
        self._load_shares = load_shares
        self._capacity = capacity
        self._held = 0
        self._queues: dict[int, EndpointQueue[T]] = {}
        self._organizations: dict[int, OrganizationQueue] = {}
        self._hosts: dict[str, TargetHost] = {}
        self._connections = SharedPool(connections)
        self._turns: OrderedDict[int, None] = OrderedDict()
        """The organizations that have a delivery to start now, in the order of their turns."""
        self._timers: list[tuple[float, int, bool, int]] = []
        """A heap of (time, number, whether it is an organization's, key)."""
        self._numbers = count()

    def __iter__(self) -> Iterator[int]:
        return iter(self._queues)

    def __contains__(self, key: int) -> bool:
        return key in self._queues

    def __getitem__(self, key: int) -> EndpointQueue[T]:
        return self._queues[key]

    def has_capacity(self, key: int, organization: int) -> bool:
        """Return whether one more delivery may be added for this subscription of this organization."""
        queue = self._queues.get(key)
        return (queue is None or not queue.is_full()) and self._room_of(organization) > 0

    def blocked(self, now: float) -> list[int]:
        """Return the subscriptions whose deliveries cannot be claimed now: their queues are full or paused."""
        return [key for key, queue in self._queues.items() if queue.is_full() or queue.paused_until > now]

    def is_full(self, key: int) -> bool:
        """Return whether deliveries to this subscription may wait in the table, because memory had no room for them."""
        queue = self._queues[key]
        return queue.is_full() or self._room_of(queue.organization) < _MOST_CLAIMED

    def has_failing(self) -> bool:
        """Return whether the last attempt of any endpoint failed: of what is claimed for it, most is given back."""
        return any(queue.standing is Standing.FAILS for queue in self._queues.values())

    def without_room(self) -> list[int]:
        """Return the organizations whose deliveries cannot be claimed now: they hold as many as they may."""
        return [key for key in self._organizations if self._room_of(key) < _MOST_CLAIMED]

    def free_capacity(self) -> int:
        """Return how many more deliveries may be held in all."""
        return self._capacity - self._held

    def organizations(self) -> list[int]:
        """Return the organizations of all queues."""
        return list(self._organizations)

    def usage(self, organization: int) -> Usage:
        """Return what an organization uses now, also one without a queue."""
        queue = self._organizations.get(organization)
        if queue is None:
            return Usage()
        return Usage(queue.share.used, max(0, queue.held - queue.share.used), queue.begun)

    def set_organization_limits(
        self, organization: int, *, in_flight: int | None, rate: float | None, now: float
    ) -> None:
        """Set the most attempts of an organization in flight, and begun per second; None is no limit."""
        queue = self._organizations[organization]
        queue.share.most, queue.pace.rate = in_flight, rate
        self._offer_organization(organization, now)

    def set_endpoint(self, key: int, limits: Limits, host: str, now: float) -> None:
        """Set the limits of a subscription, and the host (with its port) that it is sent to."""
        queue = self._queues[key]
        queue.limits = limits
        share = self._hosts.setdefault(host, TargetHost()).share_of(queue.organization)
        if share is not queue.host:
            self._move_to_host(key, queue, share, now)
        self._replace(key, queue, now)

    def add(self, key: int, item: T, organization: int, now: float) -> bool:
        """Append a delivery to its queue; return whether the queue was created for it."""
        is_new = key not in self._queues
        if is_new:
            self._queues[key] = EndpointQueue(organization)
            if organization not in self._organizations:
                self._organizations[organization] = OrganizationQueue(
                    partial(self._load_shares.use, organization, Load.DELIVERIES)
                )
        queue = self._queues[key]
        queue.waiting.append(item)
        self._hold(queue, 1)
        if queue.place is None:
            self._offer(key, queue, now)
        return is_new

    def take(self, now: float, most: int) -> list[T]:
        """Remove and return the deliveries to start now: one of each organization in turn, at most `most`."""
        self._fire_timers(now)
        taken: list[T] = []
        while self._turns and len(taken) < most:
            organization, _ = self._turns.popitem(last=False)
            taken += self._take_one(organization, now)
            self._offer_organization(organization, now)
        return taken

    def next_ready_at(self, now: float) -> float | None:
        """Return the earliest time at which a pause or a rate may let another delivery start; None if none waits so."""
        return max(now, self._timers[0][0]) if self._timers else None

    def succeeded(self, key: int, now: float) -> None:
        """Record that a delivery in flight of this queue was delivered."""
        queue = self._queues[key]
        queue.succeeded()
        if queue.host is not None:
            queue.host.answered()
        self._hold(queue, -1)
        self._left(key, queue, now)

    def failed(
        self, key: int, now: float, *, slow_down: bool, retry_after: float = 0.0, is_answered: bool = True
    ) -> list[T]:
        """Record that a delivery in flight failed; return the waiting ones that the queue may no longer hold."""
        queue = self._queues[key]
        excess = queue.failed(now, slow_down=slow_down, retry_after=retry_after)
        if queue.host is not None and not is_answered:
            queue.host.unanswered()
        self._organizations[queue.organization].failed(now)
        self._hold(queue, -1 - len(excess))
        self._left(key, queue, now)
        return excess

    def settled(self, organization: int, now: float) -> None:
        """Record that the outcome of an attempt, of which the queue knows already, is stored."""
        crowded = self._connections.end(self._organizations[organization].share)
        for each in (organization, *crowded):
            self._offer_organization(each, now)

    def abandoned(self, key: int, now: float) -> None:
        """Record that a delivery in flight of this queue was not sent, and is no longer held here."""
        queue = self._queues[key]
        self._unsent(queue)
        self._hold(queue, -1)
        self._left(key, queue, now)
        self.settled(queue.organization, now)

    def put_back(self, key: int, item: T, now: float) -> None:
        """Return a delivery in flight, of which no attempt was started, to the front of its queue."""
        queue = self._queues[key]
        self._unsent(queue)
        queue.waiting.appendleft(item)
        self._left(key, queue, now)
        self.settled(queue.organization, now)

    def forget_idle(self, now: float) -> None:
        """Remove the queues that are idle, and the organizations and hosts without a queue."""
        for key in [key for key, queue in self._queues.items() if queue.is_idle(now)]:
            self._leave_place(key, self._queues.pop(key))
        queues = self._queues.values()
        owners, hosts = {queue.organization for queue in queues}, {queue.host.host for queue in queues if queue.host}
        for organization in [key for key, each in self._organizations.items() if each.is_idle(now)]:
            if organization not in owners:
                del self._organizations[organization]
        self._hosts = {name: host for name, host in self._hosts.items() if host in hosts}

    def clear(self) -> list[T]:
        """Remove and return all waiting deliveries. Those in flight stay."""
        waiting = [item for queue in self._queues.values() for item in queue.waiting]
        for queue in self._queues.values():
            self._hold(queue, -len(queue.waiting))
            queue.waiting.clear()
        return waiting

    def _unsent(self, queue: EndpointQueue[T]) -> None:
        queue.unsent()
        self._organizations[queue.organization].unsent()

    def _room_of(self, organization: int) -> int:
        queue = self._organizations.get(organization)
        return self.free_capacity() - (queue.held if queue is not None else 0)

    def _hold(self, queue: EndpointQueue[T], number: int) -> None:
        self._held += number
        self._organizations[queue.organization].held += number

    def _take_one(self, organization: int, now: float) -> list[T]:
        """Start the delivery whose turn it is in an organization; [] if none of its endpoints may start one."""
        owner = self._organizations[organization]
        # Its limits may have changed since it was given the turn.
        if (owner.ready_at(now) or now) > now or not self._connections.admits(organization, owner.share):
            return []
        while (key := owner.next_endpoint(now)) is not None:
            queue = self._queues[key]
            queue.place = None
            if queue.ready_at(now) != now:
                self._offer(key, queue, now)
                self._try_next_at(queue.host, now)  # it may have had the turn of another that waits for the host
            elif queue.host is not None and not queue.host.admits():
                self._place(key, queue, queue.host.waiting)
            else:
                return [self._begin(key, queue, owner, now)]
        return []

    def _begin(self, key: int, queue: EndpointQueue[T], owner: OrganizationQueue, now: float) -> T:
        item = queue.begin(now)
        owner.began(now)
        self._connections.begin(owner.share)
        if queue.host is not None:
            queue.host.host.pool.begin(queue.host)
        self._offer(key, queue, now)
        return item

    def _left(self, key: int, queue: EndpointQueue[T], now: float) -> None:
        """Let those go on that an attempt of this queue, which has ended, may have kept waiting."""
        self._replace(key, queue, now)
        if (share := queue.host) is not None:
            crowded = share.host.pool.end(share)
            for _ in range(2):  # one for the attempt that has ended, one because the window may have grown
                self._try_next_at(share, now)
            for organization in crowded:
                self._try_next_at(share.host.shares.get(organization), now)

    def _try_next_at(self, share: HostShare | None, now: float) -> None:
        """Give the first endpoint that waits for a host its turn again."""
        if share is not None and share.waiting:
            key, _ = share.waiting.popitem(last=False)
            self._queues[key].place = None
            self._offer(key, self._queues[key], now)

    def _move_to_host(self, key: int, queue: EndpointQueue[T], share: HostShare, now: float) -> None:
        before = queue.host
        if before is not None:
            if queue.place is before.waiting:
                self._leave_place(key, queue)
            for organization in before.host.pool.end(before, queue.running):
                self._try_next_at(before.host.shares.get(organization), now)
        queue.host = share
        share.host.pool.begin(share, queue.running)

    def _replace(self, key: int, queue: EndpointQueue[T], now: float) -> None:
        """Put an endpoint where it waits now, if its standing or its limits have changed; else it keeps its place."""
        is_waiting_for_host = queue.host is not None and queue.place is queue.host.waiting
        ring = self._organizations[queue.organization].ring(queue.standing)
        if queue.place is not None and queue.place is not ring and not is_waiting_for_host:
            self._leave_place(key, queue)
        if queue.place is None:
            self._offer(key, queue, now)

    def _offer(self, key: int, queue: EndpointQueue[T], now: float) -> None:
        """Let an endpoint that is in no place wait for its next turn, or for the time at which it may have one."""
        ready_at = queue.ready_at(now)
        if ready_at is None:
            return
        if ready_at > now:
            if ready_at < queue.timer_at:
                queue.timer_at = ready_at
                self._set_timer(ready_at, False, key)
            return
        self._place(key, queue, self._organizations[queue.organization].ring(queue.standing))
        self._offer_organization(queue.organization, now)

    def _offer_organization(self, organization: int, now: float) -> None:
        """Let an organization wait for its next turn, if one of its endpoints has a delivery to start."""
        owner = self._organizations.get(organization)
        if owner is None or organization in self._turns:
            return
        ready_at = owner.ready_at(now)
        if ready_at is None or ready_at == math.inf or not self._connections.admits(organization, owner.share):
            return
        if ready_at <= now:
            self._turns[organization] = None
        elif ready_at < owner.timer_at:
            owner.timer_at = ready_at
            self._set_timer(ready_at, True, organization)

    def _place(self, key: int, queue: EndpointQueue[T], place: OrderedDict[int, None]) -> None:
        place[key] = None
        queue.place = place

    def _leave_place(self, key: int, queue: EndpointQueue[T]) -> None:
        if queue.place is not None:
            del queue.place[key]
            queue.place = None

    def _set_timer(self, at: float, is_organization: bool, key: int) -> None:
        heapq.heappush(self._timers, (at, next(self._numbers), is_organization, key))

    def _fire_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            at, _, is_organization, key = heapq.heappop(self._timers)
            if is_organization:
                owner = self._organizations.get(key)
                if owner is not None and owner.timer_at == at:
                    owner.timer_at = math.inf
                    self._offer_organization(key, now)
            elif (queue := self._queues.get(key)) is not None and queue.timer_at == at:
                queue.timer_at = math.inf
                if queue.place is None:
                    self._offer(key, queue, now)
