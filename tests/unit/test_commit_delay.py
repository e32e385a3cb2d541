"""When a commit is worth delaying."""

from receiver.storage.commit_delay import CommitDelay


def paced(writes: int, apart: float, batches: int = 100) -> CommitDelay:
    """A pace after batches of so many writes, with so many seconds between two of them."""
    pace = CommitDelay()
    for number in range(1, batches + 1):
        pace.note_batch(writes, number * apart)
    return pace


def test_nobody_waits_when_writes_come_slowly() -> None:
    assert not paced(1, 0.005).is_worthwhile(1)
    assert not CommitDelay().is_worthwhile(1)


def test_a_small_commit_waits_when_writes_come_fast() -> None:
    assert paced(1, 0.001).is_worthwhile(1)


def test_a_commit_that_has_enough_waits_for_no_more() -> None:
    assert not paced(20, 0.005).is_worthwhile(20)


def test_waits_that_bring_nothing_are_left_for_a_while() -> None:
    pace = paced(1, 0.001)
    for _ in range(4):
        assert pace.is_worthwhile(1)
        pace.waited(0)
    assert not pace.is_worthwhile(1)
    for number in range(101, 142):
        pace.note_batch(1, number * 0.001)
    assert pace.is_worthwhile(1)


def test_waits_of_which_some_bring_something_go_on() -> None:
    pace = paced(1, 0.001)
    for brought in (0, 0, 0, 2, 0, 0, 0):
        pace.waited(brought)
    assert pace.is_worthwhile(1)
