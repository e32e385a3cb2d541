"""How often a log line tells of what happens again and again."""

from collections import OrderedDict

_MOST_SUBJECTS = 1_000
_MOST_LINES = 20
_MINUTE = 60.0


class LogLines:
    """Bounds the log lines about what happens again and again: one a minute for each subject, and 20 for all of them.

    A subject is whatever a line is about, such as a client's network or the reason of a refusal. Of 1,000 subjects it
    is known when they had their last line; of others, those of long ago are forgotten.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By subject: when a line may be written again, and what happened since the last one."""
        self._lines = 0
        self._minute_end = 0.0

    def due(self, subject: str, now: float) -> int:
        """Count once more, at `now` in seconds; return how often it happened since the subject's last line, or 0.

        A number above 0 means that a line is to be written now.
        """
        next_at, count = self._last.pop(subject, (now, 0))
        count += 1
        is_due = now >= next_at and self._has_line(now)
        self._last[subject] = (now + _MINUTE, 0) if is_due else (next_at, count)
        if len(self._last) > _MOST_SUBJECTS:
            self._last.popitem(last=False)
        return count if is_due else 0

    def _has_line(self, now: float) -> bool:
        if now >= self._minute_end:
            self._lines, self._minute_end = 0, now + _MINUTE
        self._lines += 1
        return self._lines <= _MOST_LINES
