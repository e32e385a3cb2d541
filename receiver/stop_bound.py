"""How long a stop may take: one bound from the first signal to the end of the process, and the parts of it.

What is under way when its part is over is left to leases: the next start, or another process, goes on with it.
"""

import math
import threading
import time
from collections.abc import Callable

REQUESTS = 0.6
"""Until this share of the bound, requests are answered; then those in progress are broken off."""
WORK = 0.85
"""Until this share, calls to providers, deliveries and writes under way are finished."""
TELEMETRY = 0.9
"""Until this share, spans and error reports that wait are sent."""
END = 0.95
"""At this share the process ends, whatever still holds it."""


class StopBound:
    """The time that a stop may take, in seconds. In the first `lame_duck` of them everything is still served."""

    def __init__(
        self, seconds: float = 25.0, lame_duck: float = 0.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._lame_duck = lame_duck
        self._now = now
        self._began_at: float | None = None
        self._begun = threading.Event()
        self._lame_until = -math.inf

    def begin(self, *, lame: bool = False) -> None:
        """Begin to count, unless that was done before; with `lame`, with the lame duck."""
        if self._began_at is None:
            self._began_at = self._now()
            if lame:
                self._lame_until = self._began_at + self._lame_duck
            self._begun.set()

    def wait_begun(self) -> None:
        """Wait, in a thread, until the stop has begun."""
        self._begun.wait()

    @property
    def has_begun(self) -> bool:
        """Whether the stop has begun."""
        return self._began_at is not None

    @property
    def is_lame(self) -> bool:
        """Whether the stop has begun, and everything is still served."""
        return self._now() < self._lame_until

    def end_lame_duck(self) -> None:
        """Go on with the stop at once."""
        self._lame_until = -math.inf

    def seconds_until(self, share: float) -> float:
        """Return the seconds until this share of the bound, lame duck not counted, is over; begin, if need be."""
        self.begin()
        assert self._began_at is not None  # noqa: S101 - it was just set
        over_at = self._began_at + self._lame_duck + share * (self.seconds - self._lame_duck)
        return max(0.0, over_at - self._now())
