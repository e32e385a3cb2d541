"""A load of clients and provider webhooks during a fault, and the checks that nothing was lost afterwards."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from models import TASK_EVENTS
from receiver.sandbox import SandboxOptions
from tests.fakes.inbound import notice
from tests.fakes.reader import EVENT_STREAM, Reader, Seen
from tests.fakes.replicas import SENT_TWICE, Answer
from tests.fakes.rows import select
from tests.fakes.world import World

SHARED_SECRET = "for-tasks-that-were-created-elsewhere"
PROVIDER = SandboxOptions(
    duration=0.2, pending_seconds=0.05, lose_share=0.1, webhook_retry_seconds=0.3, webhook_attempts=60
)
"""A provider that loses one webhook in ten and repeats the others until they are accepted."""
SETTINGS: Mapping[str, Any] = {
    "piapi_webhook_secret": SHARED_SECRET,
    "poll_first_seconds": "0.5",
    "poll_max_seconds": "1",
    "submission_unknown_seconds": "2",
}
_CLIENTS = 4
_PAUSE_SECONDS = 0.05
"""The pause before each request of a client, also before a repeated one."""
_PROMPT = "picture "
_LONGEST_RESPONSE_SECONDS = 10.0
"""Within this time every request but a long poll is answered, whatever is broken and for as long as tests break it."""
_ENDS = ("task.completed", "task.failed")


class Load:
    """Clients that create tasks and wait for their ends, and a provider that also reports tasks created elsewhere.

    Every other create has an `Idempotency-Key` and is repeated until it is answered with 200. The others are sent
    once, and repeated only after a 503, which means that nothing was stored. Webhooks are repeated until they are
    answered with 200, as providers do.
    """

    def __init__(self, world: World) -> None:
        self.created: list[str] = []
        """Ids of tasks whose create was answered with 200 at the first request, or after 503s only."""
        self.created_on_retry: list[str] = []
        """Ids of tasks whose create was repeated, by the client or by the balancer.

        Whether the first request reached the provider may stay unknown.
        """
        self.reported: list[str] = []
        """The provider's ids of the tasks for which a webhook was answered with 200."""
        self.unanswered = 0
        """How many creates received no response and are not repeated: each may or may not have created a task."""
        self._world = world
        self._over = False
        self._numbers = itertools.count()
        self._waiting: list[asyncio.Task[Any]] = []
        self._progress = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests until the context ends, then wait until the last of them are answered."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_CLIENTS):
                group.create_task(self._create_each())
                group.create_task(self._report_each())
            yield
            self._over = True

    async def more(self, answers: int, seconds: float = 30) -> None:
        """Wait until `answers` more creates and webhooks have been acknowledged. Raises TimeoutError."""
        enough = self._acknowledged() + answers
        async with asyncio.timeout(seconds), self._progress:
            await self._progress.wait_for(lambda: self._acknowledged() >= enough)

    async def waited(self) -> None:
        """Wait until every client that created a task has learned of its end by a long poll."""
        await asyncio.gather(*self._waiting)

    def _acknowledged(self) -> int:
        return len(self.created) + len(self.created_on_retry) + len(self.reported)

    async def _create_each(self) -> None:
        while not self._over:
            number = next(self._numbers)
            headers = {"idempotency-key": f"create-{number}"} if number % 2 else {}
            is_repeated = False
            answer = await self._create(number, headers)
            while answer.status_code == 503 or (headers and answer.status_code != 200):
                is_repeated = bool(headers)
                answer = await self._create(number, headers)
            if answer.status_code != 200:
                self.unanswered += 1
                continue
            task_id = str(answer.json()["data"]["task_id"])
            self._waiting.append(asyncio.create_task(self._wait(task_id)))
            is_repeated = is_repeated or SENT_TWICE in answer.headers
            await self._note(self.created_on_retry if is_repeated else self.created, task_id)

    async def _create(self, number: int, headers: dict[str, str]) -> httpx.Response:
        """Create a task; return the response, a 502 if there was none."""
        body = {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": f"{_PROMPT}{number}"}}
        await asyncio.sleep(_PAUSE_SECONDS)
        with suppress(httpx.TransportError):
            return await self._world.api.post("/api/v1/task", json=body, headers=headers)
        return httpx.Response(502)

    async def _wait(self, task_id: str) -> None:
        """Wait for the task's end by long polls, until one of them returns it."""
        query = {"wait_for_completion": "true", "timeout_seconds": "30"}
        while True:
            with suppress(httpx.TransportError):
                answer = await self._world.api.get(f"/api/v1/task/{task_id}", params=query)
                assert answer.status_code in (200, 502, 503), answer.text
                if answer.status_code == 200 and answer.json()["data"]["status"] in ("completed", "failed"):
                    return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _report_each(self) -> None:
        while not self._over:
            provider_id = f"elsewhere-{next(self._numbers)}"
            while not await self._report(provider_id):
                pass
            await self._note(self.reported, provider_id)

    async def _report(self, provider_id: str) -> bool:
        await asyncio.sleep(_PAUSE_SECONDS)
        with suppress(httpx.TransportError):
            answer = await self._world.provider.post(
                f"{self._world.base}/hooks/piapi",
                json=notice(provider_id, "completed", output={"image_url": "https://example.com/i.png"}),
                headers={"x-webhook-secret": SHARED_SECRET},
            )
            return answer.status_code == 200
        return False

    async def _note(self, acknowledged: list[str], task_id: str) -> None:
        async with self._progress:
            acknowledged.append(task_id)
            self._progress.notify_all()


class Listener:
    """A client of the live stream, which reconnects when it ends or breaks and resumes after the last event seen."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self.seen: list[Seen] = []
        self.times = 0
        """How often the stream was opened."""
        self._worlds = itertools.cycle(worlds)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Follow the stream until the context ends."""
        task = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def saw(self, sequences: list[int], seconds: float = 20) -> None:
        """Wait for the last of these sequence numbers; check that exactly these were seen, in this order."""
        async with asyncio.timeout(seconds):
            while not self.seen or self.seen[-1].sequence < sequences[-1]:  # noqa: ASYNC110 - see `Reader`
                await asyncio.sleep(0.01)
        assert [seen.sequence for seen in self.seen] == sequences

    async def _listen(self) -> None:
        for world in self._worlds:
            last = self.seen[-1].id if self.seen else "0"
            with suppress(httpx.TransportError):
                stream = world.api.stream("GET", "/api/v1/events", headers={**EVENT_STREAM, "last-event-id": last})
                async with stream as answer:
                    assert answer.status_code in (200, 503), await answer.aread()
                    if answer.status_code == 200:
                        self.times += 1
                        reader = Reader(answer)
                        reader.seen = self.seen
                        await reader.end(seconds=600)
            await asyncio.sleep(_PAUSE_SECONDS)


@asynccontextmanager
async def under_load(world: World, replicas: Sequence[World]) -> AsyncIterator[tuple[Load, Listener]]:
    """Run a load on `world`, and a stream client that reconnects to each of `replicas` in turn.

    When the context ends, check that nothing was lost and that the stream showed each event once and in order.
    """
    await subscribe(world)
    load, listener = Load(world), Listener(replicas)
    async with listener.listening():
        async with load.running():
            yield load, listener
        await nothing_was_lost(world, load)
        await load.waited()
        await listener.saw(every_sequence(world))


async def subscribe(world: World) -> None:
    """Register two webhooks: one for all events of tasks, at `/all`, and one for their ends, at `/ends`."""
    await world.webhook(endpoint_url=f"{world.subscriber.base}/all", event_types=[*TASK_EVENTS])
    await world.webhook(endpoint_url=f"{world.subscriber.base}/ends")


async def nothing_was_lost(world: World, load: Load, seconds: float = 30) -> None:
    """Check that what was acknowledged is stored, every task ended, none was created twice, and all were delivered."""
    tasks = await _every_task(world, seconds)
    by_provider_id = {task["provider_task_id"]: task for task in tasks.values()}
    acknowledged = [tasks[task_id] for task_id in load.created] + [by_provider_id[its_id] for its_id in load.reported]
    assert [task for task in acknowledged if task["status"] != "completed"] == []
    assert set(load.created_on_retry) <= tasks.keys()
    await _nothing_was_created_twice(world, tasks)
    await _every_event_was_delivered(world, seconds)


def every_sequence(world: World) -> list[int]:
    """Return the sequence numbers of all events, in order."""
    return [row["id"] for row in select(world, "SELECT id FROM event ORDER BY id")]


def refusals_carry_retry_after(answers: Sequence[Answer]) -> None:
    """Check that every request was answered soon, with 200 or with a 503 that has a `Retry-After`.

    A 504 is allowed where a write was not confirmed, or its response could not be stored.
    """
    assert {answer.status for answer in answers} - {504} == {200, 503}
    assert all(answer.retry_after for answer in answers if answer.status != 200)
    slowest = max((answer for answer in answers if not answer.is_waiting), key=lambda answer: answer.seconds)
    assert slowest.seconds < _LONGEST_RESPONSE_SECONDS, slowest


async def _every_task(world: World, seconds: float) -> dict[str, dict[str, Any]]:
    """Wait until all tasks have ended; return them by id."""
    ids = [str(row["uid"]) for row in select(world, "SELECT uid FROM task")]
    return {task["task_id"]: task for task in await asyncio.gather(*(world.ended(task_id, seconds) for task_id in ids))}


async def _nothing_was_created_twice(world: World, tasks: dict[str, dict[str, Any]]) -> None:
    """Check that each task and each create made one provider task at most, and those given up as unknown made none."""
    prompts = Counter(task["input"]["prompt"] for task in (await world.provider.get("/sandbox/tasks")).json()["tasks"])
    assert not [prompt for prompt, times in prompts.items() if times > 1 and prompt.startswith(_PROMPT)]
    stats = await world.provider_stats()
    assert stats["created"] == len(stats["by_endpoint"])
    assert max(stats["by_endpoint"].values()) == 1
    made = {endpoint.rpartition("/")[2] for endpoint in stats["by_endpoint"]}
    assert made <= tasks.keys()
    for task_id in made:
        assert tasks[task_id]["status"] == "completed", tasks[task_id]
    given_up = [task for task in tasks.values() if task["status"] != "completed"]
    assert {task["error"]["code"] for task in given_up} <= {"submission_unknown"}


async def _every_event_was_delivered(world: World, seconds: float) -> None:
    """Check that each task ended once, and each subscriber received each of its events and no event that is not stored.

    An event may have been delivered more than once.
    """
    events = select(world, "SELECT e.uid, e.type, t.uid AS task FROM event e JOIN task t ON t.id = e.task_id")
    ends = [event for event in events if event["type"] in _ENDS]
    assert len({event["task"] for event in ends}) == len(ends)
    wanted = {("/all", event["uid"]) for event in events} | {("/ends", event["uid"]) for event in ends}

    def delivered() -> set[tuple[str, str]]:
        return {(received.path, received.event_id) for received in world.subscriber.accepted}

    await world.subscriber.until(lambda _heard: wanted <= delivered(), seconds)
    assert delivered() == wanted
