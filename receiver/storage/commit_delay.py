"""When a commit is worth delaying: under a load that commits of one write each would fill.

What a commit costs is paid once for all of its writes. When they come so fast that each one's own commit would leave
time for nothing else, a short wait for a few more brings all of them to the disk sooner.
"""

COMMIT_DELAY_SECONDS = 0.001
_FEW = 4
"""So many writes are enough for a commit."""
_BUSY_GAP_SECONDS = 1 / 700
"""Between writes, on average: what one commit and the work around it cost, or a little less."""
_REMEMBERED = 10
"""Batches."""
_TRIES, _PAUSE = 4, 40
"""So many waits one after the other that brought nothing, and for so many batches none is tried: all who write wait for
their answers."""


class CommitDelay:
    """How fast writes come, and whether waiting for more of them pays."""

    def __init__(self) -> None:
        self._gap_seconds = 1.0
        self._last_batch_at = 0.0
        self._tries = 0
        self._pause = 0

    def is_worthwhile(self, writes: int) -> bool:
        """Say whether a commit of so many writes is better made `COMMIT_DELAY_SECONDS` later."""
        return writes < _FEW and self._gap_seconds < _BUSY_GAP_SECONDS and not self._pause

    def waited(self, brought: int) -> None:
        """Note how many more writes a wait brought."""
        self._tries = 0 if brought else self._tries + 1
        if self._tries == _TRIES:
            self._tries, self._pause = 0, _PAUSE

    def note_batch(self, writes: int, now: float) -> None:
        """Note that so many writes are committed now, by the loop's clock."""
        gap = min((now - self._last_batch_at) / writes, 1.0)
        self._gap_seconds += (gap - self._gap_seconds) / _REMEMBERED
        self._last_batch_at = now
        self._pause = max(self._pause - 1, 0)
