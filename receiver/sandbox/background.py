"""The sandbox's own asyncio tasks: task lives and notices. None outlives the app."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Keeps a reference to every task that it starts, and ends them all."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` beside the requests."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def stop(self) -> None:
        """Cancel what runs, and what that starts while it ends, and wait for it."""
        while self._running:
            ending = list(self._running)
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
