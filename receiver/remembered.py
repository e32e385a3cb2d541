"""The result of a computation that many ask for, computed at most once in a time however many ask."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Returns what `compute` returned last, for a time from its end. Who asks while it runs waits for that run.

    The time is `seconds`, or `times` as long as it took if that is longer. What it raises is remembered too. Used on
    one event loop.
    """

    def __init__(self, compute: Callable[[], Awaitable[Value]], seconds: float, times: float = 0.0) -> None:
        self._compute = compute
        self._seconds = seconds
        self._times = times
        self._computing: asyncio.Task[Value] | None = None
        self._until = 0.0

    async def get(self) -> Value:
        """Return the result. A caller that is cancelled does not cancel it for the others."""
        now = asyncio.get_running_loop().time()
        if self._computing is None or (self._computing.done() and now >= self._until):
            self._computing = asyncio.create_task(self._run())
        return await asyncio.shield(self._computing)

    async def _run(self) -> Value:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            return await self._compute()
        finally:
            now = clock()
            self._until = now + max(self._seconds, (now - began) * self._times)
