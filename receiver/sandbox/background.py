"""The sandbox's asyncio tasks, for the scripts and the notices. All of them end when the app stops."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Starts asyncio tasks, keeps references to them, and cancels them all at the end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` concurrently with the requests."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def stop(self) -> None:
        """Cancel all running tasks, and those that they start while they end, and wait for them."""
        while self._running:
            ending = list(self._running)
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
