"""The demo's own client: it creates each task exactly once, also through the death of the service."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from receiver.cli.demo.environment import EVENT_TYPES, Environment
from receiver.cli.demo.workload import DemoTask
from receiver.cli.failure import Failure, Status

_PAUSE_SECONDS = 0.25
_PAGE = 200
_BUSY = frozenset({429, 503})


class Client:
    """Talks to the service of a environment. `ids` are Ringback's ids by the tasks' numbers."""

    def __init__(self, http: httpx.AsyncClient, environment: Environment) -> None:
        self._http = http
        self._environment = environment
        self._headers = {"Authorization": f"Bearer {environment.api_key}"}
        self._answered = asyncio.Condition()
        self.ids: dict[int, str] = {}
        self.refused_connections = 0
        """Creates that met nobody: certainly not taken, and sent again."""
        self.lost_answers = 0
        """Creates whose answer was lost: never sent again unseen."""
        self.found_again = 0
        """Those of them that were there when the service was back."""

    async def subscribe(self, secret: str) -> None:
        """Register the subscriber."""
        body = {
            "endpoint_url": f"{self._environment.subscriber_url}/standard",
            "secret": secret,
            "format": "standard",
            "event_types": EVENT_TYPES,
        }
        _data(await self._send("POST", "/api/v1/webhooks", json=body))

    async def create(self, wanted: DemoTask) -> None:
        """Create a task, once."""
        while True:
            start = self._environment.starts
            try:
                answer = await self._send("POST", "/api/v1/task", json=wanted.body)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                self.refused_connections += 1
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except httpx.TransportError:
                self.lost_answers += 1
                task_id = await self._find_after_restart(wanted.number, start)
                if task_id is None:
                    continue
                self.found_again += 1
            else:
                if answer.status_code in _BUSY:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
                    continue
                task_id = _data(answer)["task_id"]
            await self._note(wanted.number, task_id)
            return

    async def answered(self, numbers: range, count: int) -> None:
        """Wait until so many of these tasks have their ids."""
        async with self._answered:
            await self._answered.wait_for(lambda: sum(number in self.ids for number in numbers) >= count)

    async def tasks(self, filters: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return all tasks, the newest first."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            params = {"limit": str(_PAGE), **(filters or {}), **cursor}
            page = _data(await self._send("GET", "/api/v1/tasks", params=params))
            found += page["data"]
            if not page["has_more"]:
                return found
            cursor = {"cursor": page["next_cursor"]}

    async def events(self, task_id: str) -> list[dict[str, Any]]:
        """Return a task's events."""
        page = _data(await self._send("GET", f"/api/v1/tasks/{task_id}/events", params={"limit": str(_PAGE)}))
        return list(page["data"])

    async def look_inside(self, url: str) -> dict[str, Any]:
        """Return what one of the other processes says of itself."""
        return dict((await self._http.get(url)).raise_for_status().json())

    async def _find_after_restart(self, number: int, start: int) -> str | None:
        """Return the id of a task whose create was not answered, or None if it was not taken.

        Whoever might have taken it must be dead, or it could still be taken after we looked.
        """
        await self._environment.started_after(start)
        found = await self.tasks({"metadata[demo]": str(number)})
        return str(found[0]["task_id"]) if found else None

    async def _note(self, number: int, task_id: str) -> None:
        async with self._answered:
            self.ids[number] = task_id
            self._answered.notify_all()

    async def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        return await self._http.request(method, f"{self._environment.url}{path}", headers=self._headers, **given)


def _data(answer: httpx.Response) -> Any:
    if not answer.is_success:
        message = (
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}: {answer.text[:300]}"
        )
        raise Failure(Status.UNREACHABLE, message)
    return answer.json()["data"]
