"""The supervisor: keeps the loops going, whatever one of them stumbles over."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from receiver.errors import Unavailable
from receiver.telemetry import get_logger

log = get_logger("workers.supervisor")

_AGAIN_SECONDS = 1.0
_LONGEST_SECONDS = 30.0


class Supervisor:
    """Runs named loops; one that fails is begun again, ever later while it keeps failing of itself."""

    def __init__(self, loops: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        self._loops = loops
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin every loop."""
        self._tasks = [asyncio.create_task(self._keep(name), name=f"ringback-{name}") for name in self._loops]

    async def stop(self) -> None:
        """End every loop; what they had begun is theirs to drain."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, name: str) -> None:
        failures = 0
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await self._loops[name]()
            except Exception as error:
                if _is_unavailable(error):
                    log.warning("a loop waits for the database", loop=name)
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                failures = 0 if asyncio.get_running_loop().time() - started > _LONGEST_SECONDS else failures + 1
                delay = min(_AGAIN_SECONDS * 2 ** (failures - 1), _LONGEST_SECONDS) if failures else _AGAIN_SECONDS
                log.error("a loop failed and is begun again", loop=name, seconds=delay, exc_info=error)
                await asyncio.sleep(delay)


def _is_unavailable(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_unavailable(part) for part in error.exceptions)
    return isinstance(error, Unavailable)
