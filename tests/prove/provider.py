"""A provider with PiAPI's task API for campaigns: it writes down what it did, and its weather can be made bad.

It is not the sandbox, because the checker needs the provider's own record of every task and every answer, and faults
that the sandbox has not: an error after the task was made, webhooks that are forged. It is written from
`receiver/providers/piapi/CONTRACT.md`. What a task does follows from the campaign's seed, its mark and its attempt.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox.answers import CutConnection
from tests.prove.history import History
from tests.prove.notices import Notices
from tests.prove.weather import Answering, Weather

_NOT_YET = "0001-01-01T00:00:00Z"
TERMINAL = frozenset({"completed", "failed", "cancelled"})


@dataclass
class ProviderTask:
    """A task at the provider. `mark` and `attempt` tell what it was made for."""

    id: str
    mark: str
    attempt: int
    body: dict[str, Any]
    endpoint: str
    secret: str
    rng: random.Random
    status: str = "pending"
    output: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    ended: float | None = None
    recalled: asyncio.Event = field(default_factory=asyncio.Event)
    hidden_looks: int = 0
    """How many more looks are answered with "not found"."""

    def data(self) -> dict[str, Any]:
        """Return the task in PiAPI's JSON."""
        failed = self.status == "failed"
        config = {"webhook_config": {"endpoint": self.endpoint, "secret": self.secret}}
        error = {"code": 10000 if failed else 0, "raw_message": "", "message": "the model failed" if failed else ""}
        times = {"created_at": _time(self.created), "started_at": _NOT_YET, "ended_at": _time(self.ended)}
        return {
            "task_id": self.id,
            "model": self.body["model"],
            "task_type": self.body["task_type"],
            "status": self.status,
            "config": config,
            "input": self.body["input"],
            "output": self.output,
            "meta": {**times, "usage": {"type": "point", "frozen": 0, "consume": 20000}},
            "detail": None,
            "logs": [],
            "error": {**error, "detail": None},
        }


class Provider:
    """Makes tasks, ends them, and sends webhooks. `weather` may be changed at any time."""

    def __init__(self, history: History, seed: str, notices: Notices) -> None:
        self.weather = Weather()
        self.tasks: dict[str, ProviderTask] = {}
        self._notices = notices
        self._history = history
        self._seed = seed
        self._running: set[asyncio.Task[None]] = set()
        self._calls = random.Random(f"{seed} calls")

    def app(self) -> Starlette:
        """Return the server's application."""
        return Starlette(
            routes=[
                Route("/api/v1/task", self._create, methods=["POST"]),
                Route("/api/v1/task/{task_id}", self._get, methods=["GET"]),
                Route("/api/v1/task/{task_id}", self._cancel, methods=["DELETE"]),
                Route("/api/open/tasks/histories", self._list, methods=["GET"]),
            ]
        )

    async def stop(self) -> None:
        """End what still runs."""
        while self._running:
            ending = list(self._running)
            for each in ending:
                each.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    @property
    def open(self) -> int:
        """How many tasks have not ended."""
        return sum(task.status not in TERMINAL for task in self.tasks.values())

    async def _create(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        answering = self.weather.of_create(self._calls)
        if not answering.makes:
            return await self._answer("create", answering, request, None)
        task = self._make(body)
        return await self._answer("create", answering, request, task, task.data())

    async def _get(self, request: Request) -> Response:
        task = self.tasks.get(request.path_params["task_id"])
        answering = self.weather.of_look(self._calls)
        if task is not None and task.hidden_looks > 0:
            task.hidden_looks -= 1
            answering = Answering(status=404)
        elif task is None:
            answering = Answering(status=404)
        return await self._answer("fetch", answering, request, task, task.data() if task else None)

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        page, size = int(query.get("page") or 1), int(query.get("page_size") or 10)
        since, until = float(query.get("start_time") or 0), float(query.get("end_time") or "inf")
        found = [task for task in reversed(self.tasks.values()) if since <= int(task.created) <= until]
        shown = [task.data() for task in found[(page - 1) * size : page * size]]
        data = {"data": shown, "page": page, "size": size, "total": len(found)}
        return await self._answer("list", self.weather.of_look(self._calls), request, None, data)

    async def _cancel(self, request: Request) -> Response:
        task = self.tasks.get(request.path_params["task_id"])
        answering = self.weather.of_look(self._calls)
        if task is None:
            answering = Answering(status=404)
        elif answering.makes and task.status != "pending":
            answering = Answering(status=400)
        elif answering.makes:
            self._history.write("provider", "recalled", provider_task_id=task.id, mark=task.mark)
            self._end(task, "cancelled")
            task.recalled.set()
        return await self._answer("cancel", answering, request, task, {})

    async def _answer(
        self, op: str, answering: Answering, request: Request, task: ProviderTask | None, data: Any = None
    ) -> Response:
        """Answer as the weather says, after its delay; write it down."""
        task_id = task.id if task else None
        if answering.fault is not None:
            self._history.write("fault", f"provider: {answering.fault}, to {op}", hit=True, provider_task_id=task_id)
        self._history.write(
            "provider",
            "answered",
            op=op,
            status=None if answering.cut else answering.status,
            fault=answering.fault,
            provider_task_id=task_id,
        )
        await asyncio.sleep(answering.delay)
        if answering.cut:
            return CutConnection()
        body: dict[str, Any] = {"code": answering.status, "message": "the weather is bad"}
        if answering.status == 200:
            body = {"code": 200, "message": "success", "data": data}
        headers = {"retry-after": "1"} if answering.status == 429 else {}
        return Response(orjson.dumps(body), answering.status, headers, media_type="application/json")

    def _make(self, body: dict[str, Any]) -> ProviderTask:
        hook = (body.get("config") or {}).get("webhook_config") or {}
        endpoint = hook.get("endpoint") or ""
        attempt = int(parse_qs(urlsplit(endpoint).query).get("attempt", ["1"])[0])
        mark = str(body["input"].get("mark"))
        rng = random.Random(f"{self._seed} {mark} {attempt}")
        task = ProviderTask(str(uuid.uuid4()), mark, attempt, body, endpoint, hook.get("secret") or "", rng)
        task.hidden_looks = self.weather.hidden_looks(rng)
        self.tasks[task.id] = task
        self._history.write(
            "provider",
            "made",
            provider_task_id=task.id,
            mark=mark,
            attempt=attempt,
            task_id=urlsplit(endpoint).path.rpartition("/")[2] or None,
            webhook=bool(endpoint),
        )
        self._start(self._live(task))
        return task

    async def _live(self, task: ProviderTask) -> None:
        """Run a task to its end, unless it is recalled, and send its webhooks."""
        shape = self.weather.life(task.rng)
        self._tell(task)
        with suppress(TimeoutError):
            async with asyncio.timeout(shape.pending):
                await task.recalled.wait()
        if task.status == "pending":
            task.status = "processing"
            self._tell(task)
            await asyncio.sleep(shape.processing)
            self._end(task, "failed" if shape.fails else "completed")
        self._tell(task)

    def _end(self, task: ProviderTask, status: str) -> None:
        task.status, task.ended = status, time.time()
        if status == "completed":
            task.output = {"image_url": f"https://example.com/{task.id}.png"}
        self._history.write("provider", "ended", provider_task_id=task.id, mark=task.mark, status=status)

    def _tell(self, task: ProviderTask) -> None:
        if task.endpoint:
            for notice in self._notices.of(task.id, task.endpoint, task.secret, task.data(), self.weather, task.rng):
                self._start(notice)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        running = asyncio.create_task(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)


def _time(moment: float | None) -> str:
    return _NOT_YET if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
