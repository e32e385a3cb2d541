"""The demo itself: create, kill, start again, wait, compare."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from receiver.cli.demo.checks import CheckResult, Facts, judge
from receiver.cli.demo.client import Client
from receiver.cli.demo.environment import Environment
from receiver.cli.demo.progress import DemoProgress, Watcher
from receiver.cli.demo.view import View
from receiver.cli.demo.workload import Workload, make_workload

SEED = 7
_CREATES_A_SECOND = 40.0
_LEAST_SECONDS = 6.0
"""Creating takes at least so long, so that much is under way half-way."""
_DEAD_SECONDS = 1.5
_AT_ONCE = 16


@dataclass(frozen=True)
class ScenarioResult:
    """How the demo ended."""

    checks: CheckResult
    progress: DemoProgress
    client: Client
    in_time: bool

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled or late."""
        return self.in_time and not self.checks.faults


async def run_scenario(count: int, environment: Environment, view: View) -> ScenarioResult:
    """Play the demo with `count` tasks on a environment that is not open yet."""
    wanted = make_workload(
        count,
        seed=SEED,
        callback_url=f"{environment.subscriber_url}/callback",
        callback_secret=environment.callback_secret,
    )
    progress = DemoProgress(wanted=count, callbacks_wanted=sum(task.own_callback for task in wanted.tasks))
    async with _http() as http:
        client = Client(http, environment)
        view.say(progress, progress.now)
        secret = await environment.open(http)
        progress.service = "running"
        await client.subscribe(secret)
        view.say(progress, f"creating {count} tasks; 30 % of the webhooks get lost, others come twice or too early")
        in_time = await _run(wanted, environment, client, progress, view)
        view.say(progress, "comparing what everybody says")
        checks = judge(await _facts(wanted, environment, client))
        return ScenarioResult(checks, progress, client, in_time)


async def _run(wanted: Workload, environment: Environment, client: Client, progress: DemoProgress, view: View) -> bool:
    """Create everything, kill the service in between, wait for the ends; False if the time was up before."""
    try:
        async with asyncio.timeout(60 + len(wanted.tasks) / 10):
            async with asyncio.TaskGroup() as group:
                group.create_task(_create_all(wanted, client))
                group.create_task(_kill_half_way(wanted, environment, client, progress, view))
                group.create_task(Watcher(progress, environment, client, view.show).until_done())
    except TimeoutError:
        return False
    return True


async def _create_all(wanted: Workload, client: Client) -> None:
    rate = min(_CREATES_A_SECOND, len(wanted.tasks) / _LEAST_SECONDS)
    async with asyncio.TaskGroup() as group:
        for task in wanted.tasks:
            group.create_task(client.create(task))
            if task.number not in wanted.burst:
                await asyncio.sleep(1 / rate)


async def _kill_half_way(
    wanted: Workload, environment: Environment, client: Client, progress: DemoProgress, view: View
) -> None:
    """Kill the service as soon as a part of the burst has its answers: the others are then under way."""
    await client.answered(wanted.burst, len(wanted.burst) // 3)
    environment.kill_service()
    progress.service = "dead"
    view.say(progress, "killed the service with -9, in the midst of creates and webhooks")
    await asyncio.sleep(_DEAD_SECONDS)
    view.say(progress, "starting it again, on the same database")
    async with _http() as http:
        await environment.start_service(http)
    progress.service = "running"
    view.say(progress, "the service is back; what came in the meantime is lost, and is looked for")


async def _facts(wanted: Workload, environment: Environment, client: Client) -> Facts:
    tasks = await client.tasks()
    room = asyncio.Semaphore(_AT_ONCE)

    async def events(task_id: str) -> tuple[str, list[dict[str, Any]]]:
        async with room:
            return task_id, await client.events(task_id)

    return Facts(
        wanted=len(wanted.tasks),
        ids=client.ids,
        own_callbacks=frozenset(task.number for task in wanted.tasks if task.own_callback),
        tasks=tasks,
        events=dict(await asyncio.gather(*(events(task["task_id"]) for task in tasks))),
        book=await client.look_inside(f"{environment.subscriber_url}/book"),
        sandbox=await client.look_inside(f"{environment.sandbox_url}/sandbox/stats"),
    )


@asynccontextmanager
async def _http() -> AsyncIterator[httpx.AsyncClient]:
    # A proxy of the environment has no business with loopback.
    async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(30.0, pool=None)) as http:
        yield http


@asynccontextmanager
async def ended_by_sigterm() -> AsyncIterator[None]:
    """Let SIGTERM end the task inside as Ctrl-C does, so that what it started is stopped."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
