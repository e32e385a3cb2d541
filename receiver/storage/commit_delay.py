"""Decides when the writer delays a commit by a millisecond, so that more writes share it.

A commit costs the same for one write as for several. When writes arrive so fast that a commit for each of them would
take all of the process's time, a short wait for a few more stores all of them sooner. When they arrive slowly, a wait
would only make each of them slower.
"""

COMMIT_DELAY_SECONDS = 0.001
_ENOUGH_WRITES = 4
"""A batch of this many writes is committed without a delay."""
_BUSY_GAP_SECONDS = 1 / 700
"""If writes arrive closer together than this on average, commits of one write each would fill the time: it is what
one commit and the work around it take, or a little less."""
_AVERAGED_BATCHES = 10
"""Over how many batches the gap between writes is averaged, roughly."""
_FRUITLESS_WAITS = 4
"""After this many waits in a row without another write, the delay is skipped: probably every caller that writes now
waits for its own result, so that no further write can arrive before the commit."""
_SKIPPED_BATCHES = 40
"""For how many batches it is then skipped."""


class CommitDelay:
    """Measures how fast writes arrive, and decides whether waiting for more of them pays."""

    def __init__(self) -> None:
        self._gap_seconds = 1.0
        self._last_batch_at = 0.0
        self._fruitless_waits = 0
        self._batches_to_skip = 0

    def is_worthwhile(self, writes: int) -> bool:
        """Return whether to delay the commit of a batch that has `writes` writes now."""
        return writes < _ENOUGH_WRITES and self._gap_seconds < _BUSY_GAP_SECONDS and not self._batches_to_skip

    def waited(self, more: int) -> None:
        """Note that a delay is over, and how many `more` writes arrived during it."""
        self._fruitless_waits = 0 if more else self._fruitless_waits + 1
        if self._fruitless_waits == _FRUITLESS_WAITS:
            self._fruitless_waits, self._batches_to_skip = 0, _SKIPPED_BATCHES

    def note_batch(self, writes: int, now: float) -> None:
        """Note that a batch of `writes` writes is committed at `now`, in seconds of the loop's clock."""
        gap = min((now - self._last_batch_at) / writes, 1.0)
        self._gap_seconds += (gap - self._gap_seconds) / _AVERAGED_BATCHES
        self._last_batch_at = now
        self._batches_to_skip = max(self._batches_to_skip - 1, 0)
