"""The supervisor: runs the background loops and restarts one that fails."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from receiver.errors import Unavailable
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, exceptions

log = get_logger("workers.supervisor")

_RESTART_SECONDS = 1.0
_LONGEST_SECONDS = 30.0
"""The waits before a restart: the first, and the longest. A loop that ran longer than that begins with the first."""


class Supervisor:
    """Runs named loops. One that fails is restarted, with a wait that doubles while it keeps failing."""

    def __init__(self, loops: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        self._loops = loops
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def start(self) -> None:
        """Start every loop."""
        self._tasks = [asyncio.create_task(self._keep(name), name=f"ringback-{name}") for name in self._loops]

    async def stop(self) -> None:
        """Cancel every loop. The work that a loop has started is drained by its own `drain`."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, name: str) -> None:
        failures = 0
        while not self._is_stopping:
            started = asyncio.get_running_loop().time()
            try:
                await self._loops[name]()
            except Exception as error:
                if self._is_stopping:  # it ended a last piece of work, and that failed: the cancellation is lost
                    log.warning("loop failed while it stopped", loop=name, error=str(error))
                    return
                if _is_unavailable(error):
                    log.warning("loop waits for the database", loop=name, error=str(error))
                    await asyncio.sleep(_RESTART_SECONDS)
                    continue
                failures = 0 if asyncio.get_running_loop().time() - started > _LONGEST_SECONDS else failures + 1
                delay = min(_RESTART_SECONDS * 2 ** (failures - 1), _LONGEST_SECONDS) if failures else _RESTART_SECONDS
                counted(exceptions, "loop").inc()
                log.error("loop failed; restarting", loop=name, seconds=delay, exc_info=error)
                await asyncio.sleep(delay)


def _is_unavailable(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_unavailable(part) for part in error.exceptions)
    return isinstance(error, Unavailable)
