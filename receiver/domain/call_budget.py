"""How far ahead the calls to a provider may be planned: by one process, and by all that share its rate limit."""

LONGEST_PAUSE = 300.0
"""Seconds. A provider that asks for a longer pause is called again after this."""
AHEAD_SECONDS = 0.25
"""A process reserves at most this much of a shared limit at once, or one call if that takes longer."""
_MOST_PROCESSES = 100
"""More than any service has: what all of them can have reserved is the most that the next free time can be ahead."""


def most_ahead(interval: float) -> float:
    """Return how many seconds ahead the next free time of a shared limit can be; `interval` is between two calls."""
    return _MOST_PROCESSES * max(AHEAD_SECONDS, interval)
