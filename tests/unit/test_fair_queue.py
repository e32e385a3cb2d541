"""Taking turns, by property: nobody is served out of turn, and nobody is forgotten."""

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.fair_queue import Turns

LANES = st.sampled_from("abcd")


def waiting(*lanes: str) -> Turns[tuple[str, int]]:
    """Return turns in which these wait, in this order."""
    turns: Turns[tuple[str, int]] = Turns()
    for number, lane in enumerate(lanes):
        turns.add(lane, (lane, number))
    return turns


def taken(turns: Turns[tuple[str, int]]) -> list[tuple[str, int]]:
    return [turns.take() for _ in range(len(turns))]


def test_a_single_one_waits_for_one_round_and_not_for_a_long_line() -> None:
    assert [lane for lane, _ in taken(waiting(*"aaaa", "b", "c"))] == list("abcaaa")


def test_who_comes_again_comes_last() -> None:
    turns = waiting("a", "b")
    turns.take()
    turns.add("a", ("a", 2))
    assert [lane for lane, _ in taken(turns)] == ["b", "a"]


def test_who_waits_no_more_costs_nobody_a_turn() -> None:
    turns = waiting("a", "b", "b")
    turns.discard("a", ("a", 0))
    turns.discard("b", ("b", 1))
    turns.discard("b", ("b", 1))
    turns.discard("z", ("z", 9))
    assert taken(turns) == [("b", 2)]


@given(st.lists(LANES))
def test_everybody_is_served_once_and_a_lane_in_its_order(lanes: list[str]) -> None:
    served = taken(waiting(*lanes))
    assert sorted(served) == sorted(zip(lanes, range(len(lanes)), strict=True))
    for lane in set(lanes):
        numbers = [number for each, number in served if each == lane]
        assert numbers == sorted(numbers)


@given(st.lists(st.one_of(LANES, st.none())))
def test_between_two_turns_of_one_lane_no_other_that_waits_is_left_out(steps: list[str | None]) -> None:
    """A step is somebody who comes, or None: somebody is served."""
    turns: Turns[str] = Turns()
    waiting_in: Counter[str] = Counter()
    # How often each other lane was served since this one began to wait for its turn.
    passed: dict[str, Counter[str]] = defaultdict(Counter)
    for step in steps:
        if step is not None:
            turns.add(step, step)
            waiting_in[step] += 1
        elif len(turns):
            lane = turns.take()
            waiting_in[lane] -= 1
            passed.pop(lane, None)
            for other in waiting_in:
                if other != lane and waiting_in[other]:
                    passed[other][lane] += 1
                    assert passed[other][lane] <= 1
    assert len(turns) == waiting_in.total()
