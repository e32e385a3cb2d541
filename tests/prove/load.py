"""The load of a campaign: clients that do what users do, in an order that the seed decides."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.prove.client import Answer, Client
from tests.prove.signatures import new_secret
from tests.prove.subscribers import CALLBACK_SECRET, Endpoint, Subscribers

_TERMINAL = ("completed", "failed", "cancelled")
_MOST_WEBHOOKS = 3
_PAUSE_SECONDS = (0.02, 0.35)
_WAITS_AFTER_CREATE = 0.3
_MODEL = {"model": "Qubico/flux1-schnell", "task_type": "txt2img"}
_ACTION = "Qubico/flux1-schnell:txt2img"
_SHAPES: tuple[tuple[tuple[str, ...], ...], ...] = (
    ((), ("s1",), ("s2",)),
    ((), (), ("s1", "s2")),
    ((), ("s1",), ("s1",)),
)
"""Graphs of runs: what each of the steps s1, s2, s3 depends on."""


class Load:
    """Several clients. Each mark that they put into what they create is unique in the campaign."""

    def __init__(self, client: Client, subscribers: Subscribers, seed: str, clients: int) -> None:
        self._client = client
        self._subscribers = subscribers
        self._seed = seed
        self._clients = clients
        self._over = False
        self._tasks: list[str] = []
        self._failed: list[str] = []
        self._runs: list[str] = []
        self._webhooks: list[str] = []
        self._began = datetime.now(UTC)
        self._waiting: set[asyncio.Task[Any]] = set()
        self._progress = asyncio.Condition()
        self._answered = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests until the context ends, then wait until every call has its last answer."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._work(number))
            try:
                yield
            finally:
                self._over = True

    async def waited(self) -> None:
        """Wait until every long poll has seen the end of its task, for as long as each of them tries."""
        while self._waiting:
            await asyncio.gather(*self._waiting)

    async def stop(self) -> None:
        """End the long polls that still wait."""
        for waiting in self._waiting:
            waiting.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    async def more(self, answers: int, seconds: float = 30) -> bool:
        """Wait until `answers` more calls were answered with a success; return False if that takes too long."""
        enough = self._answered + answers
        try:
            async with asyncio.timeout(seconds), self._progress:
                await self._progress.wait_for(lambda: self._answered >= enough)
        except TimeoutError:
            self._client.history.write("campaign", "slow", wanted=answers, seconds=seconds)
            return False
        return True

    async def _work(self, number: int) -> None:
        rng = random.Random(f"{self._seed} client {number}")
        operations: dict[Callable[[random.Random, str], Awaitable[None]], float] = {
            self._create: 40,
            self._bulk: 7,
            self._run: 18,
            self._cancel_run: 9,
            self._retry_run: 4,
            self._cancel_task: 9,
            self._retry_task: 6,
            self._webhook: 2,
        }
        for turn in itertools.count():
            if self._over:
                return
            (operation,) = rng.choices([*operations], [*operations.values()])
            await operation(rng, f"m{number}-{turn}")
            await asyncio.sleep(rng.uniform(*_PAUSE_SECONDS))

    async def _create(self, rng: random.Random, mark: str) -> None:
        body = {**_task(mark, rng), "config": self._config(rng)}
        if rng.random() < 0.5:
            answer = await self._client.repeated("create", "/api/v1/task", body, key=f"k-{mark}", mark=mark)
        else:
            answer = await self._client.once("create", "POST", "/api/v1/task", body, mark=mark)
        if answer.status == 200:
            task_id = str(answer.data["task_id"])
            self._tasks.append(task_id)
            await self._note()
            if rng.random() < _WAITS_AFTER_CREATE:
                self._begin(self._wait(task_id, mark))

    async def _bulk(self, rng: random.Random, mark: str) -> None:
        count = rng.randint(2, 6)
        body = {"tasks": [_task(f"{mark}.b{index}", rng) for index in range(count)]}
        answer = await self._keyed_or_once(rng, "bulk", "/api/v1/tasks", body, mark=mark, count=count)
        if answer.status == 202:
            self._tasks += [each["task_id"] for each in answer.data["data"] if "task_id" in each]
            await self._note()

    async def _run(self, rng: random.Random, mark: str) -> None:
        shape = rng.choice(_SHAPES)
        steps = [_step(mark, index, needs, rng) for index, needs in enumerate(shape, 1)]
        body = {"steps": steps, "metadata": {"mark": mark}}
        answer = await self._keyed_or_once(rng, "run", "/api/v1/runs", body, mark=mark, steps=len(steps))
        if answer.status == 202:
            self._runs.append(str(answer.data["run_id"]))
            await self._note()

    async def _cancel_run(self, rng: random.Random, mark: str) -> None:
        if self._runs:
            target = rng.choice(self._runs[-6:])
            await self._change(rng, "run_cancel", f"/api/v1/runs/{target}/cancel", mark, target)

    async def _retry_run(self, rng: random.Random, mark: str) -> None:
        if self._runs:
            target = rng.choice(self._runs)
            await self._change(rng, "run_retry", f"/api/v1/runs/{target}/retry", mark, target)

    async def _cancel_task(self, rng: random.Random, mark: str) -> None:
        if self._tasks:
            target = rng.choice(self._tasks[-6:])
            await self._change(rng, "task_cancel", f"/api/v1/tasks/{target}/cancel", mark, target)

    async def _retry_task(self, rng: random.Random, mark: str) -> None:
        candidates = self._failed or self._tasks
        if candidates:
            target = rng.choice(candidates)
            await self._change(rng, "task_retry", f"/api/v1/tasks/{target}/retry", mark, target)

    async def _change(self, rng: random.Random, op: str, path: str, mark: str, target: str) -> None:
        answer = await self._keyed_or_once(rng, op, path, None, mark=mark, target=target)
        if answer.status is not None and answer.status < 300:
            await self._note()

    async def _webhook(self, rng: random.Random, mark: str) -> None:
        """Register a webhook in the midst of all, and have everything since the beginning sent to it."""
        if len(self._webhooks) >= _MOST_WEBHOOKS:
            return
        name = f"late-{mark}"
        self._webhooks.append(name)
        self._subscribers.endpoints[name] = Endpoint(new_secret(mark))
        body = {"endpoint_url": self._subscribers.url(name), "secret": new_secret(mark), "format": "standard"}
        answer = await self._client.repeated("webhook", "/api/v1/webhooks", body, key=f"k-{mark}", mark=mark, name=name)
        if answer.status != 200:
            return
        webhook_id = str(answer.data["id"])
        self._subscribers.endpoints[name].webhook_id = webhook_id
        since = (self._began - timedelta(days=1)).isoformat()
        path = f"/api/v1/webhooks/{webhook_id}/replay"
        await self._client.repeated("replay", path, {"since": since}, key=f"r-{mark}", mark=mark, target=webhook_id)
        await self._note()

    async def _keyed_or_once(self, rng: random.Random, op: str, path: str, body: Any, **noted: Any) -> Answer:
        if rng.random() < 0.6:
            return await self._client.repeated(op, path, body, key=f"k-{noted['mark']}", **noted)
        return await self._client.once(op, "POST", path, body, **noted)

    async def _wait(self, task_id: str, mark: str) -> None:
        """Wait for a task's end by long polls, until one returns it."""
        path = f"/api/v1/tasks/{task_id}?wait_for_completion=true&timeout_seconds=20"
        for _ in range(40):
            answer = await self._client.once("wait", "GET", path, mark=mark, target=task_id)
            if answer.status == 404:
                return
            if answer.status == 200 and answer.data["status"] in _TERMINAL:
                if answer.data["status"] != "completed":
                    self._failed.append(task_id)
                return
            if answer.status != 200:
                await asyncio.sleep(0.5)

    def _config(self, rng: random.Random) -> dict[str, Any]:
        if rng.random() < 0.85:
            return {}
        callback = {"endpoint": self._subscribers.url("callback"), "secret": CALLBACK_SECRET}
        return {"webhook_config": callback}

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        waiting = asyncio.create_task(work)
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _note(self) -> None:
        async with self._progress:
            self._answered += 1
            self._progress.notify_all()


def _task(mark: str, rng: random.Random) -> dict[str, Any]:
    retry = {"retry": {"max_attempts": 2, "backoff_seconds": 0.2}} if rng.random() < 0.3 else {}
    return {**_MODEL, "input": {"prompt": mark, "mark": mark}, "metadata": {"mark": mark}, **retry}


def _step(mark: str, index: int, needs: tuple[str, ...], rng: random.Random) -> dict[str, Any]:
    name = f"{mark}.s{index}"
    step = {
        "id": f"s{index}",
        "action": _ACTION,
        "depends_on": list(needs),
        "input": {"prompt": name, "mark": name},
        "retry": {"max_attempts": rng.randint(1, 3), "backoff_seconds": 0.2},
    }
    if needs:
        step["input_map"] = {"image": f"$steps.{needs[0]}.result.image_url"}
    return step
