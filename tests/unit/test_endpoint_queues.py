"""The endpoint queues: fairness, limits, order, and the little that endpoints which are down may hold."""

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.domain.endpoint_queue import (
    DEFAULT_IN_FLIGHT,
    FIRST_IN_FLIGHT,
    REMEMBERED_SECONDS,
    WAITING_PER_SLOT,
    Limits,
)
from receiver.domain.endpoint_queues import EndpointQueues
from receiver.domain.load_shares import LoadShares

Item = tuple[int, int]
CAPACITY = 500
CONNECTIONS = 1024
ORGANIZATIONS = 2


@dataclass(frozen=True)
class Endpoint:
    """How a subscriber behaves: how long a response takes, and which ones fail or ask to slow down."""

    limits: Limits
    seconds: float
    host: str
    fails: frozenset[int]
    slow_downs: frozenset[int]


ENDPOINTS = st.builds(
    Endpoint,
    limits=st.builds(
        Limits,
        in_flight=st.integers(1, 40),
        rate=st.none() | st.floats(0.5, 200),
    ),
    seconds=st.floats(0, 20),
    host=st.sampled_from(["one.example:443", "other.example:443"]),
    fails=st.frozensets(st.integers(0, 40)),
    slow_downs=st.frozensets(st.integers(0, 40)),
)


class Simulation:
    """Runs queues against endpoints on a simulated clock. Failed deliveries are not retried."""

    def __init__(self, endpoints: list[Endpoint], arrivals: list[int]) -> None:
        self.endpoints = endpoints
        self.queues: EndpointQueues[Item] = EndpointQueues(CAPACITY, CONNECTIONS, LoadShares())
        self.now = 0.0
        self.begun: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self.returned: list[Item] = []
        self.most_running: Counter[int] = Counter()
        self._running: list[tuple[float, Item]] = []
        numbers: Counter[int] = Counter()
        for key in arrivals:
            if self.queues.has_capacity(key, key % ORGANIZATIONS):
                self.queues.add(key, (key, numbers[key]), key % ORGANIZATIONS, self.now)
                self.queues.set_endpoint(key, endpoints[key].limits, endpoints[key].host, self.now)
                numbers[key] += 1
        self.offered = numbers

    def run(self) -> None:
        while True:
            while taken := self.queues.take(self.now, 10):
                for item in taken:
                    self._begin(item)
            ready_at = self.queues.next_ready_at(self.now)
            moments = [] if ready_at is None else [ready_at]
            moments += [self._running[0][0]] if self._running else []
            if not moments:
                return
            self.now = min(moments)
            while self._running and self._running[0][0] <= self.now:
                self._finish(heapq.heappop(self._running)[1])

    def _begin(self, item: Item) -> None:
        key, number = item
        self.begun[key].append((self.now, number))
        self.most_running[key] = max(self.most_running[key], self.queues[key].running)
        heapq.heappush(self._running, (self.now + self.endpoints[key].seconds, item))

    def _finish(self, item: Item) -> None:
        key, number = item
        endpoint = self.endpoints[key]
        if number in endpoint.fails | endpoint.slow_downs:
            slow = number in endpoint.slow_downs
            self.returned += self.queues.failed(key, self.now, slow_down=slow, is_answered=number % 2 == 0)
        else:
            self.queues.succeeded(key, self.now)
        self.queues.settled(key % ORGANIZATIONS, self.now)


@st.composite
def simulations(draw: st.DrawFn) -> Simulation:
    endpoints = draw(st.lists(ENDPOINTS, min_size=1, max_size=5))
    arrivals = draw(st.lists(st.integers(0, len(endpoints) - 1), max_size=120))
    return Simulation(endpoints, arrivals)


@settings(max_examples=200)
@given(simulations())
def test_each_delivery_is_started_once_and_in_order_or_is_returned(simulation: Simulation) -> None:
    simulation.run()
    for key, count in simulation.offered.items():
        begun = [number for _, number in simulation.begun[key]]
        returned = [number for queue, number in simulation.returned if queue == key]
        assert begun == sorted(begun)
        assert sorted(begun + returned) == list(range(count))
    assert simulation.queues.free_capacity() == CAPACITY


@settings(max_examples=200)
@given(simulations())
def test_limits_are_not_exceeded(simulation: Simulation) -> None:
    simulation.run()
    for key, endpoint in enumerate(simulation.endpoints):
        assert simulation.most_running[key] <= endpoint.limits.in_flight
        starts = [at for at, _ in simulation.begun[key]]
        if endpoint.limits.rate is not None:
            gaps = [later - earlier for earlier, later in pairwise(starts)]
            assert all(gap >= 1 / endpoint.limits.rate - 1e-6 for gap in gaps)


def filled(*keys: int, each: int = 50) -> EndpointQueues[Item]:
    queues: EndpointQueues[Item] = EndpointQueues(10_000, CONNECTIONS, LoadShares())
    for key in keys:
        fill(queues, key, organization=1, each=each)
    return queues


def fill(queues: EndpointQueues[Item], key: int, *, organization: int, each: int, host: str = "") -> None:
    for number in range(each):
        queues.add(key, (key, number), organization, 0.0)
    queues.set_endpoint(key, Limits(), host or f"{key}.example:443", 0.0)


def finish(queues: EndpointQueues[Item], items: list[Item], now: float = 0.0) -> None:
    for key, _ in items:
        queues.succeeded(key, now)
        queues.settled(queues[key].organization, now)


def fail(queues: EndpointQueues[Item], key: int, now: float, **how: bool) -> list[Item]:
    returned = queues.failed(key, now, slow_down=how.get("slow_down", False), is_answered=how.get("is_answered", True))
    queues.settled(queues[key].organization, now)
    return returned


def test_queues_take_turns() -> None:
    taken = filled(1, 2, 3).take(0.0, 6)
    assert [key for key, _ in taken] == [1, 2, 3, 1, 2, 3]


def test_a_queue_that_had_its_turn_is_last_in_the_next_round() -> None:
    queues = filled(1, 2, 3)
    assert [key for key, _ in queues.take(0.0, 2)] == [1, 2]
    assert [key for key, _ in queues.take(0.0, 2)] == [3, 1]


def test_an_organization_with_a_thousand_webhooks_has_one_turn_in_a_round_as_others() -> None:
    queues: EndpointQueues[Item] = EndpointQueues(100_000, CONNECTIONS, LoadShares())
    for key in range(1000):
        fill(queues, key, organization=1, each=2)
    fill(queues, 5000, organization=2, each=3)
    fill(queues, 6000, organization=3, each=3)
    taken = [key for key, _ in queues.take(0.0, 9)]
    assert taken == [0, 5000, 6000, 1, 5000, 6000, 2, 5000, 6000]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 29)), min_size=1, max_size=150), st.integers(1, 7))
def test_a_delivery_that_may_start_waits_for_at_most_one_of_each_other_organization(
    arrivals: list[tuple[int, int]], at_once: int
) -> None:
    queues: EndpointQueues[Item] = EndpointQueues(100_000, 100_000, LoadShares())
    owners = {}
    for number, (organization, endpoint) in enumerate(arrivals):
        key = 100 * organization + endpoint
        owners[key] = organization
        queues.add(key, (key, number), organization, 0.0)
    waiting = Counter(organization for organization, _ in arrivals)
    begun: list[int] = []
    while taken := queues.take(0.0, at_once):
        begun += [owners[key] for key, _ in taken]
        finish(queues, taken)
    assert Counter(begun) == waiting
    for organization, count in waiting.items():
        places = [-1, *(place for place, each in enumerate(begun) if each == organization)]
        assert len(places) == count + 1
        for before, after in pairwise(places):
            between = Counter(begun[before + 1 : after])
            assert all(number == 1 for number in between.values())


def test_the_concurrency_of_a_queue_starts_low_and_grows_with_each_success() -> None:
    queues = filled(1, each=200)
    running = queues.take(0.0, 100)
    assert len(running) == FIRST_IN_FLIGHT
    finish(queues, running)
    running = queues.take(0.0, 100)
    assert len(running) == 2 * FIRST_IN_FLIGHT
    for _ in range(60):
        finish(queues, running[:1])
        running = running[1:] + queues.take(0.0, 100)
    assert queues[1].running <= DEFAULT_IN_FLIGHT


def test_a_queue_that_fails_shrinks_and_returns_the_deliveries_above_its_capacity() -> None:
    queues = filled(1, each=FIRST_IN_FLIGHT * (1 + WAITING_PER_SLOT))
    assert not queues.has_capacity(1, 1)
    queues.take(0.0, 100)
    returned = [item for _ in range(FIRST_IN_FLIGHT) for item in fail(queues, 1, 0.0)]
    assert len(queues[1]) <= 1 + WAITING_PER_SLOT
    assert returned[0] == (1, FIRST_IN_FLIGHT * (1 + WAITING_PER_SLOT) - 1)
    assert len(queues.take(0.0, 100)) == 1


def test_each_slow_down_doubles_the_pause_until_a_success() -> None:
    queues = filled(1)
    now, pauses = 0.0, []
    queues.take(now, 10)
    for _ in range(FIRST_IN_FLIGHT - 1):
        fail(queues, 1, now)
    for _ in range(8):
        fail(queues, 1, now, slow_down=True)
        assert queues.blocked(now) == [1]
        assert queues.take(now, 10) == []
        ready_at = queues.next_ready_at(now)
        assert ready_at is not None
        pauses.append(ready_at - now)
        now = ready_at
        assert len(queues.take(now, 10)) == 1
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    finish(queues, [(1, 0)], now)
    queues.take(now, 10)
    fail(queues, 1, now, slow_down=True)
    assert queues[1].paused_until == pytest.approx(now + 1)


def test_endpoints_that_are_down_take_little_of_the_total_capacity() -> None:
    queues: EndpointQueues[Item] = EndpointQueues(10_000, CONNECTIONS, LoadShares())
    now = 0.0
    for key in range(100):
        while queues.has_capacity(key, 1):
            queues.add(key, (key, 0), 1, now)
        for _ in queues.take(now, 10_000):
            fail(queues, key, now)
        now += 10
    assert queues.free_capacity() > 8_000
    assert queues.has_capacity(1_000, 1)


@pytest.mark.parametrize("leave", ["abandoned", "put back"])
def test_a_delivery_that_was_not_sent_takes_nothing_of_a_rate(leave: str) -> None:
    queues: EndpointQueues[Item] = EndpointQueues(CAPACITY, CONNECTIONS, LoadShares())
    for number in range(3):
        queues.add(1, (1, number), 1, 0.0)
    queues.set_endpoint(1, Limits(rate=0.1), "one.example:443", 0.0)
    queues.set_organization_limits(1, in_flight=None, rate=0.1, now=0.0)
    (first,) = queues.take(0.0, 3)
    assert queues.take(0.0, 3) == []
    if leave == "abandoned":
        queues.abandoned(1, 0.0)
    else:
        queues.put_back(1, first, 0.0)
    assert queues.usage(1).begun == 0
    assert queues.take(0.0, 3) == [(1, 1) if leave == "abandoned" else first]
    assert queues.take(0.0, 3) == []


def test_an_endpoint_fails_from_a_failure_until_its_next_success() -> None:
    queues = filled(1)
    taken = queues.take(0.0, 2)
    assert not queues.has_failing()
    fail(queues, 1, 0.0)
    assert queues.has_failing()
    finish(queues, taken[1:])
    assert not queues.has_failing()


def test_idle_queues_are_removed_and_failures_are_remembered_for_a_while() -> None:
    queues = filled(1, 2, each=1)
    queues.take(0.0, 2)
    finish(queues, [(1, 0)])
    fail(queues, 2, 0.0, slow_down=True)
    queues.forget_idle(1.0)
    assert list(queues) == [2]
    queues.forget_idle(REMEMBERED_SECONDS + 1)
    assert list(queues) == []
    assert queues.organizations() == []
