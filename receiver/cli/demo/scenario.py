"""The demo's scenario: create tasks, kill the service and start it again, wait for all ends, and check the results."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from msgspec import Struct

from receiver.cli.demo.checks import CheckResult, Observations, check
from receiver.cli.demo.client import DemoClient
from receiver.cli.demo.environment import Environment
from receiver.cli.demo.progress import DemoProgress, Display
from receiver.cli.demo.workload import Workload, make_workload
from receiver.cli.failure import ServiceUnreachable
from receiver.cli.service import TIMEOUT

SEED = 7
_CREATES_PER_SECOND = 40.0
_CREATING_SECONDS = 6.0
"""The shortest time for all creates, so that many tasks are in flight when the service is killed."""
_DOWN_SECONDS = 1.5
_WATCH_SECONDS = 0.4
_CONCURRENT_CALLS = 64


class ScenarioResult(Struct, frozen=True):
    """How the demo ended."""

    checks: CheckResult
    progress: DemoProgress
    client: DemoClient
    in_time: bool

    @property
    def good(self) -> bool:
        """Whether everything ended in time and every check passed."""
        return self.in_time and not self.checks.faults


async def run_scenario(count: int, environment: Environment, display: Display) -> ScenarioResult:
    """Run the demo with `count` tasks. Raises `Failure` if the service ends or does not answer unexpectedly."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_CONCURRENT_CALLS))
    callback = {"endpoint": f"{environment.subscriber_url}/callback", "secret": environment.subscriber.callback_secret}
    workload = make_workload(count, seed=SEED, callback=callback)
    headers, url = {"Authorization": f"Bearer {environment.api_key}"}, environment.service.url
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False) as http:
        return await _Scenario(environment, DemoClient(http, environment), workload, display).run()


class _Scenario:
    def __init__(self, environment: Environment, client: DemoClient, workload: Workload, display: Display) -> None:
        self._environment = environment
        self._service = environment.service
        self._client = client
        self._workload = workload
        self._display = display
        self._progress = DemoProgress(len(workload.bodies), len(workload.callbacks), environment.subscriber)

    async def run(self) -> ScenarioResult:
        count, in_time = len(self._workload.bodies), True
        self._announce("starting the service, a sandbox provider and a subscriber")
        await self._service.start()
        await self._client.subscribe()
        self._announce(f"creating {count} tasks; the provider loses 30 % of its webhooks, repeats and reorders others")
        try:
            async with asyncio.timeout(60 + count / 10), asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._create_and_kill())
        except TimeoutError:
            in_time = False
        self._announce("checking every task, event and notification")
        return ScenarioResult(check(await self._observe()), self._progress, self._client, in_time)

    async def _create_and_kill(self) -> None:
        count, burst = len(self._workload.bodies), self._workload.burst
        async with asyncio.TaskGroup() as group:
            await self._create(range(burst.start), group)
            creates = [group.create_task(self._client.create(each, self._workload.bodies[each])) for each in burst]
            group.create_task(self._kill_and_restart(creates))
            await self._create(range(burst.stop, count), group)

    async def _create(self, numbers: Iterable[int], group: asyncio.TaskGroup) -> None:
        rate = min(_CREATES_PER_SECOND, len(self._workload.bodies) / _CREATING_SECONDS)
        for number in numbers:
            group.create_task(self._client.create(number, self._workload.bodies[number]))
            await asyncio.sleep(1 / rate)

    async def _kill_and_restart(self, creates: Sequence[asyncio.Task[None]]) -> None:
        """Kill the service when a third of these creates are answered: the others are in flight then."""
        for _, answered in zip(range(len(creates) // 3), asyncio.as_completed(creates), strict=False):
            await answered
        self._service.kill()
        self._announce("killed the service with -9, with creates and webhooks in flight")
        await asyncio.sleep(_DOWN_SECONDS)
        self._announce("starting the service again, on the same database")
        await self._service.start()
        self._announce("the service is ready again, and polls the tasks whose webhooks it missed")

    async def _watch(self) -> None:
        """Update the numbers until everything is done."""
        while not self._progress.done:
            self._service.check()
            self._progress.sandbox = await self._client.sandbox_stats()
            kills = self._service.kills
            if self._service.ready.is_set():
                try:
                    self._progress.by_status = Counter(task["status"] for task in await self._client.tasks())
                except ServiceUnreachable:
                    if self._service.kills == kills:
                        self._service.check()
                        raise
            self._display.show(self._progress)
            await asyncio.sleep(_WATCH_SECONDS)

    async def _observe(self) -> Observations:
        tasks = await self._client.tasks()
        self._progress.sandbox = await self._client.sandbox_stats()
        return Observations(
            workload=self._workload,
            task_ids=self._client.task_ids,
            tasks=tasks,
            endings=await self._client.ending_events(task["task_id"] for task in tasks),
            subscriber=self._environment.subscriber,
            creates_by_endpoint=self._progress.sandbox["by_endpoint"],
        )

    def _announce(self, message: str) -> None:
        self._display.announce(self._progress, message)
