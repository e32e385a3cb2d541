"""When to look, send or try again. All in seconds; `jitter` is a number in [0, 1) that the caller draws."""

from collections.abc import Sequence

_POLL_GROWTH = 1.5
_LONGEST_RETRY = 3600.0
_LONGEST_RESEND = 60.0


def poll_delay(poll_count: int, *, first: float, longest: float) -> float:
    """Return the seconds until the next look at a task that was looked at `poll_count` times since its last news.

    Half as long again each time, up to `longest`: the calls grow with the logarithm of the task's age.
    """
    return _grown(first, _POLL_GROWTH, poll_count, longest)


def delivery_delay(attempt: int, delays: Sequence[float], jitter: float) -> float | None:
    """Return the seconds until the delivery attempt after the `attempt`-th, spread by 20 % either way.

    `delays` is the schedule: the seconds before each attempt, the first one included. None: it is exhausted.
    """
    if attempt >= len(delays):
        return None
    return _spread(delays[attempt], jitter)


def retry_delay(attempt: int, backoff: float, jitter: float) -> float:
    """Return the seconds between a task's failed `attempt`-th attempt (from 1) and the next one.

    `backoff`, doubled with each failure and spread by 20 % either way; an hour at most.
    """
    return min(_LONGEST_RETRY, _spread(_grown(backoff, 2.0, attempt - 1, _LONGEST_RETRY), jitter))


def resend_delay(tries: int, retry_after: float | None, jitter: float) -> float:
    """Return the seconds until a create call that made nothing is sent again, after `tries` (from 1) calls.

    1, 2, 4 ... 60, spread by 20 % either way, and never sooner than the provider's `retry_after` says,
    which is believed up to an hour.
    """
    grown = _grown(1.0, 2.0, max(tries - 1, 0), _LONGEST_RESEND)
    delay = min(_LONGEST_RESEND, _spread(grown, jitter))
    return max(delay, min(retry_after or 0.0, _LONGEST_RETRY))


def _grown(first: float, factor: float, steps: int, longest: float) -> float:
    try:
        return min(longest, first * factor**steps)
    except OverflowError:
        return longest


def _spread(delay: float, jitter: float) -> float:
    return delay * (0.8 + 0.4 * jitter)
