"""The token bucket of an organization's creates, its part of a shared limit, and the count of its streams."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.api.quotas import BURST_SECONDS, OPEN_TASKS_RETRY_SECONDS, Quotas
from receiver.domain.limit_parts import Part, whole
from receiver.errors import LimitReached, OrganizationRateLimited
from receiver.organization_limits import OrganizationLimits
from receiver.storage.organization_usage import OrganizationUsage

OURS, THEIRS = 1, 2


class FakeUsage:
    """What organizations use, as a test sets it."""

    def __init__(self) -> None:
        self.open = 0
        self.bytes = 0
        self.asked: list[int] = []

    def open_tasks(self, _organization_id: int) -> int:
        return self.open

    def stored_bytes(self, _organization_id: int) -> int:
        return self.bytes

    def admit(self, _organization_id: int, tasks: int, size: int) -> AbstractContextManager[object]:
        self.open += tasks
        self.bytes += size
        return nullcontext()

    def count_soon(self, organization_id: int) -> None:
        self.asked.append(organization_id)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def quotas(
    clock: Clock | None = None,
    usage: FakeUsage | None = None,
    part: Part = whole,
    **limits: float | str,
) -> Quotas:
    set_limits = OrganizationLimits().with_values(limits)
    return Quotas(
        lambda _organization_id: set_limits,
        cast(OrganizationUsage, usage or FakeUsage()),
        part=part,
        clock=clock or Clock(),
    )


def admitted(subject: Quotas, tasks: int = 1, organization_id: int = OURS) -> bool:
    try:
        subject.admit_creates(organization_id, tasks, 0)
    except OrganizationRateLimited:
        return False
    return True


def test_ten_seconds_worth_may_come_at_once_and_then_as_many_as_the_rate() -> None:
    clock = Clock()
    subject = quotas(clock, creates_per_second=2)
    assert [admitted(subject) for _ in range(21)] == [True] * 20 + [False]
    clock.now += 1
    assert [admitted(subject) for _ in range(3)] == [True, True, False]


def test_one_that_is_refused_says_when_it_may_come_and_may_then() -> None:
    clock = Clock()
    subject = quotas(clock, creates_per_second=0.5)
    assert admitted(subject, 5)
    with pytest.raises(OrganizationRateLimited, match=r"may create 0\.5 tasks a second") as refused:
        subject.admit_creates(OURS, 3, 0)
    assert (refused.value.param, refused.value.retry_after) == ("creates_per_second", 6)
    clock.now += 5.9
    assert not admitted(subject, 3)
    clock.now += 0.1
    assert admitted(subject, 3)


def test_a_call_with_more_than_ten_seconds_worth_is_possible_from_a_full_bucket() -> None:
    clock = Clock()
    subject = quotas(clock, creates_per_second=10)
    assert admitted(subject, 1000)
    clock.now += 91
    assert not admitted(subject, 11)
    clock.now += 0.2
    assert admitted(subject, 11)


def test_a_limit_of_none_is_none_and_one_of_zero_refuses_everything() -> None:
    assert all(admitted(quotas(creates_per_second="unlimited"), 1000) for _ in range(100))
    with pytest.raises(OrganizationRateLimited) as refused:
        quotas(creates_per_second=0).admit_creates(OURS, 1, 0)
    assert refused.value.retry_after == 3600


def test_the_creates_of_one_organization_take_nothing_from_another() -> None:
    subject = quotas(creates_per_second=1)
    assert admitted(subject, 10)
    assert not admitted(subject)
    assert admitted(subject, 10, THEIRS)


def test_a_process_allows_its_part_of_a_shared_rate_and_tells_what_is_wanted_of_it() -> None:
    clock, demand = Clock(), dict[str, float]()

    def half(name: str, wanted: float, hold: float = 0) -> float:
        demand[name] = wanted + hold
        return 0.5

    subject = quotas(clock, part=half, creates_per_second=10)
    assert admitted(subject, 50)
    assert not admitted(subject)
    assert demand.keys() == {"organization-creates:1"}
    asked = 0
    while demand["organization-creates:1"] < 15 or asked < 200:  # 20 a second for ten seconds
        admitted(subject)
        clock.now += 0.05
        asked += 1
        assert asked < 1000
    assert 15 <= demand["organization-creates:1"] <= 25


@given(
    rate=st.floats(0.1, 1000),
    calls=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 100)), min_size=1, max_size=60),
)
def test_never_more_is_created_than_the_burst_and_the_rate_allow(rate: float, calls: list[tuple[float, int]]) -> None:
    clock = Clock()
    subject, began = quotas(clock, creates_per_second=rate), clock.now
    made, largest = 0, 0
    for pause, tasks in calls:
        clock.now += pause
        if admitted(subject, tasks):
            made += tasks
            largest = max(largest, tasks)
        assert made <= rate * (BURST_SECONDS + clock.now - began) + largest + 1e-6


def test_open_tasks_and_bytes_are_refused_before_the_rate_is_used_and_a_count_is_asked_for() -> None:
    usage = FakeUsage()
    subject = quotas(usage=usage, open_tasks=3, stored_bytes=100, creates_per_second=0.1)
    with pytest.raises(LimitReached, match="may have 100 bytes and have about 0") as too_large:
        subject.admit_creates(OURS, 1, 101)
    with pytest.raises(OrganizationRateLimited, match="may have 3 tasks") as too_many:
        subject.admit_creates(OURS, 4, 10)
    assert (too_large.value.param, too_many.value.param) == ("stored_bytes", "open_tasks")
    assert too_many.value.retry_after == OPEN_TASKS_RETRY_SECONDS
    assert (usage.open, usage.bytes, usage.asked) == (0, 0, [OURS])
    subject.admit_creates(OURS, 1, 100)
    assert (usage.open, usage.bytes) == (1, 100)


def test_streams_are_counted_until_they_end_and_a_process_has_its_part_but_at_least_one() -> None:
    subject = quotas(streams=2)
    with subject.waiting(OURS):
        subject.take_stream(OURS)
        with pytest.raises(OrganizationRateLimited, match="2 streams") as refused:
            subject.take_stream(OURS)
        subject.take_stream(THEIRS)
    assert refused.value.param == "streams"
    subject.take_stream(OURS)
    assert (subject.open_streams(OURS), subject.open_streams(THEIRS)) == (2, 1)
    shared = quotas(streams=10, part=lambda _name, _wanted, _hold=2.0: 0.01)
    shared.take_stream(OURS)
    with pytest.raises(OrganizationRateLimited):
        shared.take_stream(OURS)
    with pytest.raises(OrganizationRateLimited):
        quotas(streams=0).take_stream(OURS)
