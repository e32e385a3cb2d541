"""Taking turns, by property: nobody is served out of turn, and nobody is forgotten."""

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.fair_queue import FairQueue

LANES = st.sampled_from("abcd")


def waiting(*keys: str) -> FairQueue[tuple[str, int]]:
    """Return turns in which these wait, in this order."""
    turns: FairQueue[tuple[str, int]] = FairQueue()
    for number, key in enumerate(keys):
        turns.add(key, (key, number))
    return turns


def taken(turns: FairQueue[tuple[str, int]]) -> list[tuple[str, int]]:
    return [turns.take() for _ in range(len(turns))]


def test_a_single_one_waits_for_one_round_and_not_for_a_long_line() -> None:
    assert [key for key, _ in taken(waiting(*"aaaa", "b", "c"))] == list("abcaaa")


def test_who_comes_again_comes_last() -> None:
    turns = waiting("a", "b")
    turns.take()
    turns.add("a", ("a", 2))
    assert [key for key, _ in taken(turns)] == ["b", "a"]


def test_who_waits_no_more_costs_nobody_a_turn() -> None:
    turns = waiting("a", "b", "b")
    turns.discard("a", ("a", 0))
    turns.discard("b", ("b", 1))
    turns.discard("b", ("b", 1))
    turns.discard("z", ("z", 9))
    assert taken(turns) == [("b", 2)]


@given(st.lists(LANES))
def test_everybody_is_served_once_and_a_lane_in_its_order(keys: list[str]) -> None:
    served = taken(waiting(*keys))
    assert sorted(served) == sorted(zip(keys, range(len(keys)), strict=True))
    for key in set(keys):
        numbers = [number for each, number in served if each == key]
        assert numbers == sorted(numbers)


@given(st.lists(st.one_of(LANES, st.none())))
def test_between_two_turns_of_one_lane_no_other_that_waits_is_left_out(steps: list[str | None]) -> None:
    """A step is somebody who comes, or None: somebody is served."""
    turns: FairQueue[str] = FairQueue()
    waiting_in: Counter[str] = Counter()
    # How often each other lane was served since this one began to wait for its turn.
    passed: dict[str, Counter[str]] = defaultdict(Counter)
    for step in steps:
        if step is not None:
            turns.add(step, step)
            waiting_in[step] += 1
        elif len(turns):
            key = turns.take()
            waiting_in[key] -= 1
            passed.pop(key, None)
            for other in waiting_in:
                if other != key and waiting_in[other]:
                    passed[other][key] += 1
                    assert passed[other][key] <= 1
    assert len(turns) == waiting_in.total()
