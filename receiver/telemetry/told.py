"""How long it takes from a provider's webhook until it is passed on.

The times of webhooks are kept in memory, by the event that each made, until a subscriber or a stream of this process
has the event. Those that are not told are forgotten when there are more: of the last `MOST_KEPT` events.
"""

import time
from collections import OrderedDict

from receiver.telemetry.metrics import timed, told_seconds

MOST_KEPT = 10_000


class ToldTimes:
    """The webhooks that are told to none yet."""

    def __init__(self) -> None:
        self._accepted: OrderedDict[str, float] = OrderedDict()

    def accepted(self, event_uid: str, at: float) -> None:
        """Note when the webhook of an event was accepted, in seconds of the monotonic clock; its commit is on disk."""
        if len(self._accepted) >= MOST_KEPT:
            self._accepted.popitem(last=False)  # which a dict has to search for from its first place
        self._accepted[event_uid] = at

    def told(self, event_uid: str, by: str) -> None:
        """Observe the time, if it is the first that one has this event; `by` is `delivery` or `stream`."""
        if (at := self._accepted.pop(event_uid, None)) is not None:
            timed(told_seconds, by).observe(time.monotonic() - at)


TOLD_TIMES = ToldTimes()
"""Those of this process."""
