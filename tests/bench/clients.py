"""The clients of a soak test, at a constant rate: they create tasks, list them, and follow the stream."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from tests.bench.prepared_requests import request, task_request
from tests.bench.processes import Service

CREATES_A_SECOND = 20.0
_LISTS_A_SECOND = 4.0
_STREAMS = 20
_STATUSES = ("completed", "processing", "failed")
_CHUNK = 65_536


class Clients:
    """Clients that use several services in turn. Every `rare_every`-th task is for the model `rare`."""

    def __init__(self, services: Sequence[Service], *, common: str, rare: str, rare_every: int) -> None:
        self.answers: Counter[str] = Counter()
        """How many calls of each kind were answered with 200, how many with each other status, and ended streams."""
        self.refusals: dict[int, bytes] = {}
        """The last response body for each status other than 200."""
        self.streamed = 0
        """Bytes received on the streams."""
        self._services = itertools.cycle(services)
        self._streams = [next(self._services) for _ in range(_STREAMS)]
        self._models = itertools.cycle([rare, *[common] * (rare_every - 1)])
        self._statuses = itertools.cycle(_STATUSES)

    async def run(self, seconds: float) -> None:
        """Make calls for `seconds`, then wait for their responses and close the streams."""
        following = [asyncio.create_task(self._follow(service)) for service in self._streams]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_at_rate(self._create, CREATES_A_SECOND, seconds))
                group.create_task(_at_rate(self._list, _LISTS_A_SECOND, seconds))
        finally:
            for each in following:
                each.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def _create(self) -> None:
        await self._call("created", "POST", "/api/v1/task", task_request(next(self._models)))

    async def _list(self) -> None:
        await self._call("listed", "GET", f"/api/v1/tasks?status={next(self._statuses)}&limit=50")

    async def _call(self, what: str, method: str, path: str, body: object = None) -> None:
        status, answer = await next(self._services).exchange(method, path, body)
        self.answers[what if status == 200 else f"not {what}: {status}"] += 1
        if status != 200:
            self.refusals[status] = answer

    async def _follow(self, service: Service) -> None:
        """Follow the stream, and reopen it when it ends."""
        follow = request("GET", "/api/v1/events").replace(b"\r\n\r\n", b"\r\naccept: text/event-stream\r\n\r\n")
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
                try:
                    writer.write(follow)
                    while data := await reader.read(_CHUNK):
                        self.streamed += len(data)
                finally:
                    writer.close()
            self.answers["streams that ended"] += 1
            await asyncio.sleep(1)


async def _at_rate(call: Callable[[], Coroutine[Any, Any, None]], per_second: float, seconds: float) -> None:
    """Make `per_second` calls a second, whether or not earlier ones have been answered."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, started + number / per_second - loop.time()))
            group.create_task(call())
