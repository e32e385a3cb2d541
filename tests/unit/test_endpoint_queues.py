"""The endpoint queues: fairness, limits, order, and the little that endpoints which are down may hold."""

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.domain.endpoint_queues import (
    DEFAULT_IN_FLIGHT,
    FIRST_IN_FLIGHT,
    WAITING_PER_SLOT,
    EndpointQueues,
    Limits,
)

Item = tuple[int, int]
CAPACITY = 500


@dataclass(frozen=True)
class Endpoint:
    """How a subscriber behaves: how long a response takes, and which ones fail or ask to slow down."""

    limits: Limits
    seconds: float
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
    fails=st.frozensets(st.integers(0, 40)),
    slow_downs=st.frozensets(st.integers(0, 40)),
)


class Simulation:
    """Runs queues against endpoints on a simulated clock. Failed deliveries are not retried."""

    def __init__(self, endpoints: list[Endpoint], arrivals: list[int]) -> None:
        self.endpoints = endpoints
        self.queues: EndpointQueues[Item] = EndpointQueues(CAPACITY)
        self.now = 0.0
        self.begun: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self.returned: list[Item] = []
        self.most_running: Counter[int] = Counter()
        self._running: list[tuple[float, Item]] = []
        numbers: Counter[int] = Counter()
        for key in arrivals:
            if self.queues.has_capacity(key):
                self.queues.add(key, (key, numbers[key]))
                self.queues[key].limits = endpoints[key].limits
                numbers[key] += 1
        self.offered = numbers

    def run(self) -> None:
        while True:
            for item in self.queues.take(self.now, 10):
                self._begin(item)
            moments = [at for at in (self.queues.next_ready_at(self.now),) if at is not None]
            if self.queues.take(self.now, 0) or any(
                self.queues[key].ready_at(self.now) == self.now for key in self.queues
            ):
                continue
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
            self.returned += self.queues.failed(key, self.now, slow_down=slow)
        else:
            self.queues.succeeded(key)


@st.composite
def simulations(draw: st.DrawFn) -> Simulation:
    endpoints = draw(st.lists(ENDPOINTS, min_size=1, max_size=5))
    arrivals = draw(st.lists(st.integers(0, len(endpoints) - 1), max_size=120))
    return Simulation(endpoints, arrivals)


@settings(max_examples=200, deadline=None)
@given(simulations())
def test_each_delivery_is_started_once_and_in_order_or_is_returned(simulation: Simulation) -> None:
    simulation.run()
    for key, count in simulation.offered.items():
        begun = [number for _, number in simulation.begun[key]]
        returned = [number for queue, number in simulation.returned if queue == key]
        assert begun == sorted(begun)
        assert sorted(begun + returned) == list(range(count))
    assert simulation.queues.free_capacity() == CAPACITY


@settings(max_examples=200, deadline=None)
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
    queues: EndpointQueues[Item] = EndpointQueues(10_000)
    for key in keys:
        for number in range(each):
            queues.add(key, (key, number))
    return queues


def test_queues_take_turns() -> None:
    taken = filled(1, 2, 3).take(0.0, 6)
    assert [key for key, _ in taken] == [1, 2, 3, 1, 2, 3]


def test_a_queue_that_had_its_turn_is_last_in_the_next_round() -> None:
    queues = filled(1, 2, 3)
    assert [key for key, _ in queues.take(0.0, 2)] == [1, 2]
    assert [key for key, _ in queues.take(0.0, 2)] == [3, 1]


def test_the_concurrency_of_a_queue_starts_low_and_grows_with_each_success() -> None:
    queues = filled(1, each=200)
    assert len(queues.take(0.0, 100)) == FIRST_IN_FLIGHT
    for _ in range(FIRST_IN_FLIGHT):
        queues.succeeded(1)
    assert len(queues.take(0.0, 100)) == 2 * FIRST_IN_FLIGHT
    for _ in range(60):
        queues.succeeded(1)
        queues.take(0.0, 100)
    assert queues[1].running <= DEFAULT_IN_FLIGHT


def test_a_queue_that_fails_shrinks_and_returns_the_deliveries_above_its_capacity() -> None:
    queues = filled(1, each=FIRST_IN_FLIGHT * (1 + WAITING_PER_SLOT))
    assert not queues.has_capacity(1)
    queues.take(0.0, 100)
    returned = [item for _ in range(FIRST_IN_FLIGHT) for item in queues.failed(1, 0.0, slow_down=False)]
    assert len(queues[1]) <= 1 + WAITING_PER_SLOT
    assert returned[0] == (1, FIRST_IN_FLIGHT * (1 + WAITING_PER_SLOT) - 1)
    assert len(queues.take(0.0, 100)) == 1


def test_each_slow_down_doubles_the_pause_until_a_success() -> None:
    queues = filled(1)
    now, pauses = 0.0, []
    for _ in range(8):
        queues.take(now, 1)
        queues.failed(1, now, slow_down=True)
        assert queues.blocked(now) == [1]
        assert queues.take(now, 10) == []
        ready_at = queues.next_ready_at(now)
        assert ready_at is not None
        pauses.append(ready_at - now)
        now = ready_at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    queues.take(now, 1)
    queues.succeeded(1)
    queues.take(now, 1)
    queues.failed(1, now, slow_down=True)
    assert queues.next_ready_at(now) == pytest.approx(now + 1)


def test_endpoints_that_are_down_take_little_of_the_total_capacity() -> None:
    queues: EndpointQueues[Item] = EndpointQueues(10_000)
    for key in range(100):
        while queues.has_capacity(key):
            queues.add(key, (key, 0))
        for _ in queues.take(0.0, 10_000):
            queues.failed(key, 0.0, slow_down=False)
    assert queues.free_capacity() > 8_000
    assert queues.has_capacity(1_000)


def test_idle_queues_are_removed() -> None:
    queues = filled(1, 2, each=1)
    queues.take(0.0, 2)
    queues.succeeded(1)
    queues.failed(2, 0.0, slow_down=True)
    queues.forget_idle(1.0)
    assert list(queues) == [2]
