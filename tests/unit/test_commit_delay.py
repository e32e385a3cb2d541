"""When a commit is worth delaying."""

from receiver.storage.commit_delay import CommitDelay


def after_batches(writes: int, apart: float, batches: int = 100) -> CommitDelay:
    """Return the delay's state after batches of this many writes, with this many seconds between two of them."""
    delay = CommitDelay()
    for number in range(1, batches + 1):
        delay.note_batch(writes, number * apart)
    return delay


def test_no_commit_is_delayed_when_writes_are_rare() -> None:
    assert not after_batches(1, 0.005).is_worthwhile(1)
    assert not CommitDelay().is_worthwhile(1)


def test_a_small_commit_is_delayed_when_writes_are_frequent() -> None:
    assert after_batches(1, 0.001).is_worthwhile(1)


def test_a_commit_with_enough_writes_is_not_delayed() -> None:
    assert not after_batches(20, 0.005).is_worthwhile(20)


def test_after_fruitless_delays_the_next_batches_are_not_delayed() -> None:
    delay = after_batches(1, 0.001)
    for _ in range(4):
        assert delay.is_worthwhile(1)
        delay.waited(0)
    assert not delay.is_worthwhile(1)
    for number in range(101, 142):
        delay.note_batch(1, number * 0.001)
    assert delay.is_worthwhile(1)


def test_delays_continue_as_long_as_some_of_them_bring_writes() -> None:
    delay = after_batches(1, 0.001)
    for brought in (0, 0, 0, 2, 0, 0, 0):
        delay.waited(brought)
    assert delay.is_worthwhile(1)
