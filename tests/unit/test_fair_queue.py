"""The fair queue, by example and by property: keys take turns, and no item is lost."""

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.fair_queue import FairQueue

KEYS = st.sampled_from("abcd")


def queue_of(*keys: str) -> FairQueue[tuple[str, int]]:
    """Return a queue to which one item for each of `keys` was added, in this order."""
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, key in enumerate(keys):
        queue.add(key, (key, number))
    return queue


def drained(queue: FairQueue[tuple[str, int]]) -> list[tuple[str, int]]:
    return [queue.take() for _ in range(len(queue))]


def test_a_key_with_one_item_waits_for_one_round_and_not_for_all_items_of_another() -> None:
    assert [key for key, _ in drained(queue_of(*"aaaa", "b", "c"))] == list("abcaaa")


def test_a_key_that_is_added_again_comes_last() -> None:
    queue = queue_of("a", "b")
    queue.take()
    queue.add("a", ("a", 2))
    assert [key for key, _ in drained(queue)] == ["b", "a"]


def test_a_discarded_item_takes_no_turn() -> None:
    queue = queue_of("a", "b", "b")
    queue.discard("a", ("a", 0))
    queue.discard("b", ("b", 1))
    queue.discard("b", ("b", 1))
    queue.discard("z", ("z", 9))
    assert drained(queue) == [("b", 2)]


@given(st.lists(KEYS))
def test_each_item_is_served_once_and_each_key_in_order(keys: list[str]) -> None:
    served = drained(queue_of(*keys))
    assert sorted(served) == sorted(zip(keys, range(len(keys)), strict=True))
    for key in set(keys):
        numbers = [number for each, number in served if each == key]
        assert numbers == sorted(numbers)


@given(st.lists(st.one_of(KEYS, st.none())))
def test_between_two_turns_of_a_key_every_other_waiting_key_has_one(steps: list[str | None]) -> None:
    """Each step is a key for which an item is added, or None to take an item."""
    queue: FairQueue[str] = FairQueue()
    waiting: Counter[str] = Counter()
    # For each key that waits for its turn: how often each other key was served since it began to wait.
    passed: dict[str, Counter[str]] = defaultdict(Counter)
    for step in steps:
        if step is not None:
            queue.add(step, step)
            waiting[step] += 1
        elif len(queue):
            key = queue.take()
            waiting[key] -= 1
            passed.pop(key, None)
            for other in waiting:
                if other != key and waiting[other]:
                    passed[other][key] += 1
                    assert passed[other][key] <= 1
    assert len(queue) == waiting.total()
