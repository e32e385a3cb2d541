"""What the demo knows while it runs, and the watcher that keeps it up to date."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from receiver.cli.demo.client import Client
from receiver.cli.demo.environment import Environment
from receiver.cli.show import ENDS

_PAUSE_SECONDS = 0.4


@dataclass
class DemoProgress:
    """The numbers that are shown while the demo runs."""

    wanted: int
    callbacks_wanted: int
    began: float = field(default_factory=time.monotonic)
    now: str = "starting the service, the sandbox provider and a subscriber"
    """What is happening."""
    service: str = "starting"
    by_status: Counter[str] = field(default_factory=Counter)
    sandbox: dict[str, Any] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    tasks_told: int = 0

    @property
    def seconds(self) -> float:
        """How long the demo runs."""
        return time.monotonic() - self.began

    @property
    def ended(self) -> int:
        """How many tasks are over."""
        return sum(count for status, count in self.by_status.items() if status in ENDS)

    @property
    def notices(self) -> Counter[str]:
        """What became of the provider's webhooks."""
        return Counter(self.sandbox.get("notices", {}))

    @property
    def done(self) -> bool:
        """Whether every task is over and told of, and nothing of the provider's is on its way any more."""
        return (
            self.ended >= self.wanted
            and self.tasks_told >= self.wanted
            and self.heard.get("callback_ends", 0) >= self.callbacks_wanted
            and not self.notices["in_flight"]
        )


class Watcher:
    """Asks all three processes again and again how far they are."""

    def __init__(
        self, progress: DemoProgress, environment: Environment, client: Client, show: Callable[[DemoProgress], None]
    ) -> None:
        self._progress = progress
        self._environment = environment
        self._client = client
        self._show = show

    async def until_done(self) -> None:
        """Watch until all is done; raises `Failure` if a process ends that should be there."""
        while not self._progress.done:
            self._environment.check()
            await self._look()
            self._show(self._progress)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _look(self) -> None:
        progress = self._progress
        progress.sandbox = await self._client.look_inside(f"{self._environment.sandbox_url}/sandbox/stats")
        heard = await self._client.look_inside(f"{self._environment.subscriber_url}/stats")
        progress.heard, progress.tasks_told = heard["counts"], heard["tasks_told"]
        if not self._environment.up.is_set():
            return
        try:
            tasks = await self._client.tasks()
        except httpx.TransportError:
            if self._environment.up.is_set():
                raise
            return
        progress.by_status = Counter(task["status"] for task in tasks)
