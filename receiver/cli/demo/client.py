"""The demo's client, which creates each task exactly once, even if the service is killed before it answers."""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx

from receiver.cli.demo.environment import Environment
from receiver.cli.failure import ServiceUnreachable
from receiver.cli.service import ServiceClient, reaching

ENDING_EVENTS = ("task.completed", "task.failed", "task.cancelled")
_PAUSE_SECONDS = 0.25


class DemoClient:
    """Calls the service, each call in a separate thread. `http` is a client of the service's URL."""

    def __init__(self, http: httpx.Client, environment: Environment) -> None:
        self._http = http
        self._service = ServiceClient(http)
        self._environment = environment
        self.task_ids: dict[int, str] = {}
        """The ids of the created tasks, by number."""
        self.refused_connections = 0
        """Creates while the service was down: they were not accepted, and are sent again."""
        self.lost_answers = 0
        """Creates whose answer was lost when the service was killed: they may have been accepted."""
        self.found_again = 0
        """Creates without an answer whose task exists after the restart."""

    async def subscribe(self) -> None:
        """Register the subscriber's webhook."""
        url, secret = f"{self._environment.subscriber_url}/standard", self._environment.subscriber.secret
        body = {"endpoint_url": url, "secret": secret, "format": "standard", "event_types": ENDING_EVENTS}
        await asyncio.to_thread(self._service.call, "POST", "/api/v1/webhooks", body=body)

    async def create(self, number: int, body: dict[str, Any]) -> None:
        """Create a task. If the answer is lost, look for the task after the restart before sending the create again."""
        service = self._environment.service
        while number not in self.task_ids:
            was_ready, kills = service.ready.is_set(), service.kills
            try:
                created = await asyncio.to_thread(self._service.call, "POST", "/api/v1/task", body=body)
                self.task_ids[number] = created["task_id"]
            except ServiceUnreachable:
                await asyncio.sleep(_PAUSE_SECONDS)
                await service.ready.wait()
                if not was_ready:
                    self.refused_connections += 1
                elif service.kills > kills:  # otherwise the service was busy, and answered 503
                    await self._find(number)

    async def tasks(self, **filters: str) -> list[dict[str, Any]]:
        """Return all tasks, or those that match the filters."""
        return await self._collect("/api/v1/tasks", filters)

    async def ending_events(self, task_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return the events that ended these tasks."""
        histories = await asyncio.gather(*(self._collect(f"/api/v1/tasks/{each}/events") for each in task_ids))
        return [event for history in histories for event in history if event["type"] in ENDING_EVENTS]

    async def sandbox_stats(self) -> dict[str, Any]:
        """Return the provider's statistics."""
        with reaching(httpx.URL(self._environment.sandbox_url)):
            answer = await asyncio.to_thread(self._http.get, f"{self._environment.sandbox_url}/sandbox/stats")
        return dict(answer.json())

    async def _find(self, number: int) -> None:
        """Look for the task of an unanswered create. The process that may have accepted it has ended by now."""
        self.lost_answers += 1
        for task in await self.tasks(**{"metadata[demo]": str(number)}):
            self.found_again += 1
            self.task_ids[number] = task["task_id"]

    async def _collect(self, path: str, params: dict[str, str] | None = None) -> list[dict[str, Any]]:
        return list((await asyncio.to_thread(self._service.collect, path, params))["data"])
