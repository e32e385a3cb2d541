"""Decides which batches the writer stores without locks, and when it does not try.

Why: on PostgreSQL each statement of a transaction is a round trip, and while one takes a lock before it reads, all of
them come one after another. An optimistic transaction reads without a lock, decides, and then one statement looks
whether what was read is still so, writes everything, and commits. Where it is not so, nothing is written, and the batch
is done again with locks: handlers may be called again (`receiver.storage.writer`).

Only handlers that need no other statements are worth the try (`may_be_optimistic`): what others of a batch write comes
after, in a transaction of its own. Where most tries are in vain, such as while an endpoint that fails is written to
with each outcome, they are left out for a while. A claim of tasks takes what no other session has locked: it is one
statement without a read, and by itself (`stands_alone`).
"""

from collections.abc import Callable
from typing import Any, TypeVar

NEEDS_MORE, CHANGED, CONFLICT, RESTING = "needs more", "changed", "conflict", "resting"
"""Why a batch is done with locks: it needs another statement, a row is not as it was read or is locked, the database
reports a conflict, or most tries before it were in vain."""
STORED = "stored"

_MOST_DOUBT = 16
_DOUBT_OF_ONE = 2
"""What a try in vain adds; one that stored its batch takes 1 away."""
_RESTS = 64
"""How many batches are then done with locks at once."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


class NotOptimistic(Exception):
    """Raised in an optimistic transaction where the batch has to be done with locks; nothing of it is written."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def may_be_optimistic(handler: Handler) -> Handler:
    """Mark a handler: its usual items need no statements but those that an optimistic transaction knows."""
    handler.is_optimistic = True  # type: ignore[attr-defined]
    return handler


def is_optimistic(handler: Callable[..., Any]) -> bool:
    """Return whether a handler is marked."""
    return getattr(handler, "is_optimistic", False)


def stands_alone(handler: Handler) -> Handler:
    """Mark a handler, also with `may_be_optimistic`: it is one statement, which is no part of that of others.

    Its items of a batch get a transaction of their own.
    """
    handler.stands_alone = True  # type: ignore[attr-defined]
    return may_be_optimistic(handler)


def is_alone(handler: Callable[..., Any]) -> bool:
    """Return whether a handler is marked by `stands_alone`."""
    return getattr(handler, "stands_alone", False)


def comes_last(handler: Handler) -> Handler:
    """Mark a handler that is called after the others of its batch: what it has to read they may have read already."""
    handler.comes_last = True  # type: ignore[attr-defined]
    return handler


def is_last(handler: Callable[..., Any]) -> bool:
    """Return whether a handler is marked by `comes_last`."""
    return getattr(handler, "comes_last", False)


class Doubt:
    """Counts tries, and says when they are left out."""

    def __init__(self) -> None:
        self._doubt = 0
        self._rests = 0

    def is_resting(self) -> bool:
        """Return whether the next batch is not to be tried. To be called once for each."""
        if self._rests:
            self._rests -= 1
            return True
        return False

    def stored(self) -> None:
        """Note a try that stored its batch."""
        self._doubt = max(0, self._doubt - 1)

    def in_vain(self) -> None:
        """Note a try after which the batch is done with locks."""
        self._doubt += _DOUBT_OF_ONE
        if self._doubt >= _MOST_DOUBT:
            self._doubt, self._rests = _MOST_DOUBT // 2, _RESTS
