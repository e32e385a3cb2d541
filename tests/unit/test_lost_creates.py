"""Entries of a provider's list are assigned to lost creates one to one, and never where there is a doubt."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from receiver.domain.lost_creates import SKEW_SECONDS, ListedEntry, LostCreate, assign, request_digest

START = datetime(2026, 1, 1, tzinfo=UTC)
CALL = 180.0
CAT = request_digest("flux", "txt2img", {"prompt": "a cat"})
DOG = request_digest("flux", "txt2img", {"prompt": "a dog"})
APART = 2 * (CALL + 2 * SKEW_SECONDS)
"""So far apart in time no create can be taken for another."""


def lost(uid: str, at: float, request: bytes = CAT, **fields: Any) -> LostCreate:
    submitted_at = START + timedelta(seconds=at)
    return LostCreate(uid=uid, attempt=1, request=request, submitted_at=submitted_at, **fields)


def entry(name: str, at: float | None, request: bytes = CAT) -> ListedEntry:
    created_at = None if at is None else START + timedelta(seconds=at)
    return ListedEntry(provider_task_id=name, request=request, created_at=created_at)


def assigned(creates: list[LostCreate], entries: list[ListedEntry]) -> dict[str, str]:
    return assign(creates, entries, call_seconds=CALL)


@pytest.mark.parametrize(
    ("creates", "entries", "expected"),
    [
        ([lost("a", 0)], [entry("x", 1)], {"a": "x"}),
        ([lost("a", 0)], [entry("x", None)], {"a": "x"}),
        ([lost("b", 2), lost("a", 0)], [entry("y", 3), entry("x", 1)], {"a": "x", "b": "y"}),
        ([lost("a", 0), lost("b", 2)], [entry("x", 1)], {"a": "x"}),
        ([lost("a", 0)], [entry("x", 1), entry("y", 2)], {}),
        ([lost("a", 0), lost("b", APART)], [entry("x", 1), entry("y", APART), entry("z", APART)], {"a": "x"}),
        ([lost("a", 0)], [entry("x", 1), entry("y", APART)], {"a": "x"}),
        ([lost("a", 0)], [entry("x", -SKEW_SECONDS - 1)], {}),
        ([lost("a", 0)], [entry("x", CALL + SKEW_SECONDS + 1)], {}),
        ([lost("a", 0), lost("b", 1, DOG)], [entry("x", 1, DOG)], {"b": "x"}),
        ([lost("a", 0), lost("b", 1, is_pending=True)], [entry("x", 1)], {}),
        ([lost("a", 0), lost("b", APART, is_pending=True)], [entry("x", 1), entry("y", APART)], {"a": "x"}),
    ],
)
def test_entries_go_to_the_creates_whose_they_can_only_be(
    creates: list[LostCreate], entries: list[ListedEntry], expected: dict[str, str]
) -> None:
    assert assigned(creates, entries) == expected


times = st.floats(-600, 600)
many_creates = st.lists(times, max_size=6).map(lambda all_: [lost(f"c{n}", at) for n, at in enumerate(all_)])
many_entries = st.lists(times | st.none(), max_size=6).map(
    lambda all_: [entry(f"e{n}", at) for n, at in enumerate(all_)]
)


@given(many_creates, many_entries, st.randoms(use_true_random=False))
def test_no_entry_is_assigned_twice_nor_outside_its_time_and_the_order_of_the_list_does_not_matter(
    creates: list[LostCreate], entries: list[ListedEntry], random: Any
) -> None:
    found = assigned(creates, entries)
    assert len(set(found.values())) == len(found)
    by_uid, by_name = {each.uid: each for each in creates}, {each.provider_task_id: each for each in entries}
    for uid, name in found.items():
        made = by_name[name].created_at
        if made is not None:
            seconds = (made - by_uid[uid].submitted_at).total_seconds()
            assert -SKEW_SECONDS <= seconds <= CALL + SKEW_SECONDS
    shuffled = random.sample(creates, len(creates)), random.sample(entries, len(entries))
    assert len(assigned(*shuffled)) == len(found)


@given(many_creates, many_entries)
def test_what_may_be_of_a_call_under_way_is_left_to_it(creates: list[LostCreate], entries: list[ListedEntry]) -> None:
    pending = [replace(each, is_pending=True) for each in creates]
    assert assigned(pending, entries) == {}


@given(st.lists(times, max_size=6))
def test_every_entry_is_taken_if_each_create_made_one_at_once(all_times: list[float]) -> None:
    creates = [lost(f"c{n}", at) for n, at in enumerate(all_times)]
    assert len(assigned(creates, [entry(f"e{n}", at) for n, at in enumerate(all_times)])) == len(all_times)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [1.0, {"c": None}]}, {"b": [1, {"c": None}], "a": 1.0}),
        ({"n": 2**70}, {"n": 2**70}),
    ],
)
def test_equal_requests_have_one_digest(one: Any, other: Any) -> None:
    assert request_digest("m", "t", one) == request_digest("m", "t", other)


@pytest.mark.parametrize("other", [("m", "t", {"a": "1"}), ("m", "u", {"a": 1}), ("n", "t", {"a": 1})])
def test_other_requests_have_another_digest(other: tuple[str, str, Any]) -> None:
    assert request_digest("m", "t", {"a": 1}) != request_digest(*other)
