"""The demo itself: create, kill, start again, wait, compare."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from receiver.cli.demo.board import Board, Watcher
from receiver.cli.demo.client import Client
from receiver.cli.demo.stage import Stage
from receiver.cli.demo.verdict import Facts, Verdict, judge
from receiver.cli.demo.view import View
from receiver.cli.demo.work import Plan, plan

SEED = 7
_CREATES_A_SECOND = 40.0
_LEAST_SECONDS = 6.0
"""Creating takes at least so long, so that much is under way half-way."""
_DEAD_SECONDS = 1.5
_AT_ONCE = 16


@dataclass(frozen=True)
class Played:
    """How the demo ended."""

    verdict: Verdict
    board: Board
    client: Client
    in_time: bool

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled or late."""
        return self.in_time and not self.verdict.faults


async def play(count: int, stage: Stage, view: View) -> Played:
    """Play the demo with `count` tasks on a stage that is not open yet."""
    wanted = plan(
        count, seed=SEED, callback_url=f"{stage.subscriber_url}/callback", callback_secret=stage.callback_secret
    )
    board = Board(wanted=count, callbacks_wanted=sum(task.own_callback for task in wanted.tasks))
    async with _http() as http:
        client = Client(http, stage)
        view.say(board, board.now)
        secret = await stage.open(http)
        board.service = "running"
        await client.subscribe(secret)
        view.say(board, f"creating {count} tasks; 30 % of the webhooks get lost, others come twice or too early")
        in_time = await _run(wanted, stage, client, board, view)
        view.say(board, "comparing what everybody says")
        verdict = judge(await _facts(wanted, stage, client))
        return Played(verdict, board, client, in_time)


async def _run(wanted: Plan, stage: Stage, client: Client, board: Board, view: View) -> bool:
    """Create everything, kill the service in between, wait for the ends; False if the time was up before."""
    try:
        async with asyncio.timeout(60 + len(wanted.tasks) / 10):
            async with asyncio.TaskGroup() as group:
                group.create_task(_create_all(wanted, client))
                group.create_task(_kill_half_way(wanted, stage, client, board, view))
                group.create_task(Watcher(board, stage, client, view.show).until_done())
    except TimeoutError:
        return False
    return True


async def _create_all(wanted: Plan, client: Client) -> None:
    rate = min(_CREATES_A_SECOND, len(wanted.tasks) / _LEAST_SECONDS)
    async with asyncio.TaskGroup() as group:
        for task in wanted.tasks:
            group.create_task(client.create(task))
            if task.number not in wanted.burst:
                await asyncio.sleep(1 / rate)


async def _kill_half_way(wanted: Plan, stage: Stage, client: Client, board: Board, view: View) -> None:
    """Kill the service as soon as a part of the burst has its answers: the others are then under way."""
    await client.answered(wanted.burst, len(wanted.burst) // 3)
    stage.kill_service()
    board.service = "dead"
    view.say(board, "killed the service with -9, in the midst of creates and webhooks")
    await asyncio.sleep(_DEAD_SECONDS)
    view.say(board, "starting it again, on the same database")
    async with _http() as http:
        await stage.start_service(http)
    board.service = "running"
    view.say(board, "the service is back; what came in the meantime is lost, and is looked for")


async def _facts(wanted: Plan, stage: Stage, client: Client) -> Facts:
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
        book=await client.look_inside(f"{stage.subscriber_url}/book"),
        sandbox=await client.look_inside(f"{stage.sandbox_url}/sandbox/stats"),
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
