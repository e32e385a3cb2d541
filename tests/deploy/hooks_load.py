"""Webhooks sent through a proxy, and what became of each: answered with 200 and on disk, or lost."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from tests.deploy.proxies import trusting
from tests.fakes.inbound import notice
from tests.fakes.rows import select
from tests.fakes.world import World

SECRET = "for-tasks-that-were-created-elsewhere"
_TIMEOUT = aiohttp.ClientTimeout(total=60)


class HooksLoad:
    """Sends webhooks of tasks that were created elsewhere, each once. `outcomes` counts statuses and errors."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.outcomes: Counter[str] = Counter()
        self.accepted: list[str] = []
        """The provider's ids of tasks whose webhook was answered with 200."""
        self.over = False
        self._url = f"{url}/hooks/piapi"
        self._tls = trusting(certificate)
        self._numbers = itertools.count()
        self._progress = asyncio.Condition()

    async def run(self, connections: int, *, each: int | None = None, idle: tuple[float, float] = (0, 0)) -> None:
        """Send on `connections`, each time after an idle time: `each` webhooks on each of them, or until `over`.

        `idle` is the least and the greatest idle time, in seconds; every idle time between them is as likely.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._run_one(each, idle))

    @asynccontextmanager
    async def running(self, connections: int) -> AsyncIterator[None]:
        """Send without a pause until the context ends, then wait until the last are answered."""
        running = asyncio.create_task(self.run(connections))
        try:
            yield
        finally:
            self.over = True
            await running

    async def _run_one(self, each: int | None, idle: tuple[float, float]) -> None:
        # A connection of its own for each, that the client keeps open for longer than any proxy does.
        connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=1000, ssl=self._tls)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session:
            sent = 0
            while not self.over and (each is None or sent < each):
                await asyncio.sleep(random.uniform(*idle))
                await self._send(session)
                sent += 1

    async def _send(self, session: aiohttp.ClientSession) -> None:
        provider_id = f"elsewhere-{next(self._numbers)}"
        body = notice(provider_id, "completed", output={"image_url": "https://example.com/i.png"})
        try:
            async with session.post(self._url, json=body, headers={"x-webhook-secret": SECRET}) as answer:
                outcome = str(answer.status)
                # The status decides. Rarely Caddy closes a connection as idle at the moment at which it is used again,
                # and the body of an answer is cut.
                with suppress(aiohttp.ClientPayloadError):
                    await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__
        async with self._progress:
            self.outcomes[outcome] += 1
            if outcome == "200":
                self.accepted.append(provider_id)
            self._progress.notify_all()

    async def more(self, webhooks: int, seconds: float = 120) -> None:
        """Wait until this number more are answered, in whatever way. Raises TimeoutError."""
        enough = self.outcomes.total() + webhooks
        async with asyncio.timeout(seconds), self._progress:
            await self._progress.wait_for(lambda: self.outcomes.total() >= enough)

    def lost(self, world: World) -> Counter[str]:
        """Return how many were lost, by what became of them: "not stored" is one that was answered with 200."""
        stored = {row["provider_task_id"] for row in select(world, "SELECT provider_task_id FROM task")}
        lost = Counter({outcome: count for outcome, count in self.outcomes.items() if outcome != "200"})
        missing = sum(provider_id not in stored for provider_id in self.accepted)
        return lost + Counter({"not stored": missing})
