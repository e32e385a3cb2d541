"""An event without the queue of `asyncio.Event`, which is most of what that holds while nothing waits for it."""

import asyncio
from collections.abc import Callable
from typing import Literal


class LeanEvent(asyncio.Event):
    """As `asyncio.Event`, for the two events that every connection has for as long as it is open."""

    __slots__ = ("_is_set", "_waiting", "when_set")

    when_set: Callable[[], None] | None
    """What is called each time that it is set, if anything."""

    def __init__(self) -> None:  # not that of `asyncio.Event`, which makes the queue
        self._is_set = False
        self._waiting: list[asyncio.Future[None]] | None = None
        self.when_set = None

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all that wait."""
        self._is_set = True
        for future in self._waiting or ():
            if not future.done():
                future.set_result(None)
        if self.when_set is not None:
            self.when_set()

    def clear(self) -> None:
        """Let those who wait from now on wait until it is set again."""
        self._is_set = False

    async def wait(self) -> Literal[True]:
        """Wait until it is set."""
        if not self._is_set:
            future = asyncio.get_running_loop().create_future()
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(future)
            try:
                await future
            finally:
                self._waiting.remove(future)
                if not self._waiting:
                    self._waiting = None
        return True
