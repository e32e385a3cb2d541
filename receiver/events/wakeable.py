"""A wait of one asyncio task that others end, small enough for thousands that wait for hours."""

import asyncio


class Wakeable:
    """Something for which one asyncio task at a time waits.

    `asyncio.wait`, or an `asyncio.Event` with a timeout, would hold a KiB more for each that waits.
    """

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the wait, if there is one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def woken(self, seconds: float) -> None:
        """Wait for `wake`, `seconds` at most."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
