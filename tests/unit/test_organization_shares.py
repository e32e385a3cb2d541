"""What organizations share: attempts in flight, memory and hosts, and the rates at which they may send and fail."""

import math

import pytest

from receiver.domain.endpoint_queue import Limits
from receiver.domain.endpoint_queues import EndpointQueues
from receiver.domain.load_shares import LoadShares
from receiver.domain.organization_queue import FAILURES_A_SECOND
from receiver.domain.pace import Pace
from receiver.domain.shared_pool import HOST_IN_FLIGHT, PoolShare, SharedPool

Item = tuple[int, int]
CONNECTIONS = 90


def queues_of(
    *organizations: int, webhooks: int, each: int = 4, host: str | None = None, capacity: int = 100_000
) -> EndpointQueues[Item]:
    """Return queues in which each of these organizations has as many webhooks, with as many deliveries each."""
    queues: EndpointQueues[Item] = EndpointQueues(capacity, CONNECTIONS, LoadShares())
    for organization in organizations:
        add(queues, organization, webhooks, each, host)
    return queues


def add(queues: EndpointQueues[Item], organization: int, webhooks: int, each: int = 4, host: str | None = None) -> None:
    for webhook in range(webhooks):
        key = 10_000 * organization + webhook
        for number in range(each):
            queues.add(key, (organization, number), organization, 0.0)
        queues.set_endpoint(key, Limits(), host or f"{key}.example:443", 0.0)


def taken(queues: EndpointQueues[Item], now: float = 0.0) -> list[int]:
    """Take all that may start; return its organizations."""
    return [organization for organization, _ in queues.take(now, 100_000)]


def running(queues: EndpointQueues[Item]) -> list[int]:
    """Return the keys of the attempts in flight."""
    return [key for key in queues for _ in range(queues[key].running)]


def fail(queues: EndpointQueues[Item], keys: list[int], now: float) -> None:
    """Let these attempts fail without an answer."""
    for key in keys:
        queues.failed(key, now, slow_down=False, is_answered=False)
        queues.settled(queues[key].organization, now)


def succeed(queues: EndpointQueues[Item], keys: list[int], now: float = 0.0) -> None:
    """Let these attempts succeed."""
    for key in keys:
        queues.succeeded(key, now)
        queues.settled(queues[key].organization, now)


@pytest.mark.parametrize("organizations", [1, 2, 5])
def test_whoever_wants_all_of_a_pool_leaves_as_much_of_it_free_as_each_of_them_gets(organizations: int) -> None:
    pool = SharedPool(120)
    shares = [PoolShare() for _ in range(organizations)]
    while admitted := [share for key, share in enumerate(shares) if pool.admits(key, share)]:
        pool.begin(admitted[0])
        shares.sort(key=lambda share: share.used)
    assert {share.used for share in shares} == {120 // (organizations + 1)}
    assert pool.free == 120 // (organizations + 1)


def test_an_organization_whose_endpoints_hang_leaves_connections_to_others() -> None:
    queues = queues_of(1, webhooks=1200)
    assert len(taken(queues)) == CONNECTIONS // 2
    add(queues, 2, webhooks=1)
    assert taken(queues) == [2] * 4


def test_an_organization_that_others_kept_waiting_goes_on_when_they_end() -> None:
    queues = queues_of(1, 2, 3, webhooks=100)
    first = taken(queues)
    assert {first.count(organization) for organization in (1, 2, 3)} <= {CONNECTIONS // 4, CONNECTIONS // 4 + 1}
    assert taken(queues) == []
    fail(queues, running(queues), 0.0)
    assert set(taken(queues)) == {1, 2, 3}


def test_an_attempt_counts_as_in_flight_until_its_outcome_is_stored() -> None:
    queues = queues_of(1, webhooks=1, each=10)
    queues.set_organization_limits(1, in_flight=1, rate=None, now=0.0)
    assert taken(queues) == [1]
    queues.succeeded(10_000, 0.0)
    assert taken(queues) == [], "the endpoint has answered, and the outcome waits for its commit"
    queues.settled(1, 0.0)
    assert taken(queues) == [1]


def test_an_organization_may_hold_as_many_deliveries_in_memory_as_are_free() -> None:
    queues = queues_of(webhooks=0, capacity=1000)
    webhook = 0
    while queues.has_capacity(webhook, 1):
        queues.add(webhook, (1, 0), 1, 0.0)
        webhook += 1
    assert webhook == 500
    assert queues.without_room() == [1]
    assert queues.has_capacity(5000, 2)


def test_the_limits_of_an_organization_hold_however_many_webhooks_it_has() -> None:
    queues = queues_of(1, webhooks=50)
    queues.set_organization_limits(1, in_flight=7, rate=None, now=0.0)
    assert len(taken(queues)) == 7
    queues.set_organization_limits(1, in_flight=None, rate=0, now=0.0)
    assert taken(queues) == []
    queues.set_organization_limits(1, in_flight=9, rate=None, now=0.0)
    assert len(taken(queues)) == 2


def test_limits_hold_for_an_organization_that_has_a_turn_when_they_are_set() -> None:
    queues = queues_of(1, webhooks=5)
    queues.set_organization_limits(1, in_flight=None, rate=0, now=0.0)
    assert taken(queues) == []
    queues.set_organization_limits(1, in_flight=None, rate=2.0, now=0.0)
    assert len(taken(queues)) == 3  # a second's worth, and the next one
    queues = queues_of(1, webhooks=5)
    queues.set_organization_limits(1, in_flight=0, rate=None, now=0.0)
    assert taken(queues) == []


def test_what_exceeds_the_rate_of_an_organization_waits_and_is_not_lost() -> None:
    queues = queues_of(1, webhooks=10, each=3)
    queues.set_organization_limits(1, in_flight=None, rate=5.0, now=0.0)
    now = 0.0
    begun: list[float] = []
    while len(begun) < 30:
        begun += [now for _ in taken(queues, now)]
        succeed(queues, running(queues), now)
        now = queues.next_ready_at(now) or now
    assert begun[-1] == pytest.approx((30 - 5) / 5, abs=0.3)


def test_a_thousand_webhooks_on_a_closed_port_fail_no_faster_than_a_few() -> None:
    queues: EndpointQueues[int] = EndpointQueues(100_000, CONNECTIONS, LoadShares())
    for key in range(1000):
        for _ in range(4):
            queues.add(key, key, 1, 0.0)
    now, failed = 0.0, 0
    while now < 5:
        keys = queues.take(now, 100_000)
        failed += len(keys)
        for key in keys:
            queues.failed(key, now, slow_down=False, is_answered=False)
            queues.settled(1, now)
        now = max(now + 0.01, queues.next_ready_at(now) or 0)
    assert 500 < failed <= FAILURES_A_SECOND * (5 + 2) + CONNECTIONS


def test_webhooks_that_work_do_not_wait_for_those_of_their_organization_that_fail() -> None:
    queues = queues_of(1, webhooks=40, each=60)
    while taken(queues):
        fail(queues, running(queues), 0.0)
    assert queues.next_ready_at(0.0) != 0.0, "as many have failed as may at once"
    queues.add(99_999, (7, 0), 1, 0.0)
    assert taken(queues) == [], "a new one waits, for it may fail too"
    now = 0.0
    while 7 not in taken(queues, now):
        fail(queues, running(queues), now)
        now += 0.01
        assert now < 1, "but it does not wait for all that fail"
    succeed(queues, [99_999], now)
    while taken(queues, now):
        fail(queues, running(queues), now)
    queues.add(99_999, (7, 1), 1, now)
    assert taken(queues, now) == [7]


def test_a_host_has_a_share_however_many_webhooks_and_organizations_point_at_it() -> None:
    queues: EndpointQueues[Item] = EndpointQueues(100_000, 10_000, LoadShares())
    for organization in (1, 2, 3):
        add(queues, organization, 60, each=12, host="same.example:443")
    for _ in range(3):
        assert len(taken(queues)) > 0
        assert len(running(queues)) <= HOST_IN_FLIGHT
        succeed(queues, running(queues))
    taken(queues)
    assert len(running(queues)) > HOST_IN_FLIGHT // 2
    add(queues, 4, 1, host="same.example:443")
    assert taken(queues) == [4] * 4, "one that comes later finds room there"


def test_a_host_that_does_not_answer_slows_down_for_all_webhooks_of_an_organization_together() -> None:
    queues: EndpointQueues[Item] = EndpointQueues(100_000, 10_000, LoadShares())
    add(queues, 1, webhooks=80, host="silent.example:443")
    assert len(taken(queues)) == HOST_IN_FLIGHT // 2
    fail(queues, running(queues), 0.0)
    assert len(taken(queues, 100.0)) == 32
    add(queues, 2, webhooks=40, host="silent.example:443")
    assert taken(queues, 100.0).count(2) > 100, "those of others are not slowed down by it"


def test_an_endpoint_that_moves_to_another_host_leaves_its_share_of_the_former_one() -> None:
    queues: EndpointQueues[Item] = EndpointQueues(100_000, 10_000, LoadShares())
    add(queues, 1, webhooks=80, host="silent.example:443")
    assert len(taken(queues)) == HOST_IN_FLIGHT // 2
    for key in list(queues):
        queues.set_endpoint(key, Limits(), f"{key}.example:443", 0.0)
    assert len(taken(queues)) == 4 * 80 - HOST_IN_FLIGHT // 2
    fail(queues, running(queues), 0.0)
    add(queues, 2, webhooks=80, host="silent.example:443")
    assert taken(queues, 1.0).count(2) == HOST_IN_FLIGHT // 2


def test_a_pace_allows_a_burst_and_then_the_rate() -> None:
    pace = Pace(8.0, burst=2.0)
    count = 0
    while pace.ready_at(0.0) == 0.0:
        pace.spend(0.0)
        count += 1
    assert count == 17, "two seconds' worth, and the one that is due"
    assert pace.ready_at(0.0) == 0.125
    assert pace.ready_at(5.0) == 5.0
    assert not pace.is_unspent(2.0)
    assert pace.is_unspent(3.0)
    assert Pace(None).ready_at(1.0) == 1.0
    assert Pace(0).ready_at(1.0) == math.inf
