"""Runs of five steps in a row against the same number of single tasks, with a provider that completes them at once."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, POSTGRESQL, SQLITE, Store
from tests.bench.http_server import http_response, serving
from tests.bench.load import closed_loop
from tests.bench.prepared_requests import create_one, request, task_request
from tests.bench.processes import Service, ringback
from tests.bench.provider import KEY
from tests.bench.report import at_least
from tests.bench.seed_rows import MODEL

_RUNS, _STEPS = 100, 5
_TASKS = _RUNS * _STEPS
_UNLIMITED = "100000/s"
_AIMS = {SQLITE: at_least(300), POSTGRESQL: at_least(200)}
_NOT_ENDED = "SELECT count(*) FROM {} WHERE status NOT IN ('completed', 'failed', 'cancelled')"
_COMPLETED = "SELECT count(*) FROM {} WHERE status = 'completed'"


@dataclass
class _Running:
    """A service that submits tasks as fast as it can."""

    store: Store
    service: Service

    async def rate(self, table: str, content: bytes, count: int, status: bytes) -> float:
        """Create `count` rows of `table`, each in its own call; return how many a second complete, all included."""
        (before,) = self.store.rows(_COMPLETED.format(table))[0]
        started = time.perf_counter()
        (await closed_loop([self.service.port], itertools.repeat(content, count))).expect(status)
        await self.store.until_none(_NOT_ENDED.format(table))
        seconds = time.perf_counter() - started
        if self.store.rows(_COMPLETED.format(table))[0][0] != before + count:
            raise SystemExit(f"not every {table} completed; read the log of the service: {self.service.log}")
        return count / seconds


async def runs(context: BenchContext) -> None:
    """Measure runs of five steps against single tasks."""
    numbers = itertools.count()
    async with AsyncExitStack() as resources:
        provider = await resources.enter_async_context(serving(lambda _: completed(next(numbers))))
        begun = (resources.enter_async_context(_running(context, kind, provider)) for kind in KINDS)
        both = await asyncio.gather(*begun)
        for _ in context.runs("runs"):
            for each in both:
                await _measure(context, each)


async def _measure(context: BenchContext, each: _Running) -> None:
    add, kind = context.report.add, each.store.kind
    tasks = await each.rate("task", create_one(), _TASKS, b"200")
    whole = await each.rate("run", create_run(), _RUNS, b"202")
    add("single tasks created and completed a second", kind, tasks, form="{:,.0f}")
    add(f"runs of {_STEPS} steps created and completed a second", kind, whole, form="{:,.0f}", aim=_AIMS[kind])
    add("  time of a step against a single task", kind, tasks / (whole * _STEPS), form="{:.2f} ×")


@asynccontextmanager
async def _running(context: BenchContext, kind: str, provider: str) -> AsyncIterator[_Running]:
    store = await context.databases.new(kind)
    settings = {"piapi_base_url": provider, "piapi_api_key": KEY, "provider_rate": _UNLIMITED}
    async with ringback(store, settings) as service:
        yield _Running(store, service)


def create_run() -> bytes:
    """Return the request of a client that creates a run in which each step uses the result of the previous one."""
    return request("POST", "/api/v1/runs", {"steps": [_step(number) for number in range(_STEPS)]})


def _step(number: int) -> dict[str, Any]:
    step = {"id": f"s{number}", "action": f"{MODEL}:txt2img", "input": task_request()["input"]}
    if number == 0:
        return step
    before = f"s{number - 1}"
    return {**step, "depends_on": [before], "input_map": {"image_url": f"$steps.{before}.result.result_url"}}


def completed(number: int) -> bytes:
    """Return the provider's response to a create: the task is already completed."""
    task = {
        **task_request(),
        "task_id": f"made-{number}",
        "status": "completed",
        "config": {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}},
        "output": {"image_url": f"https://img.example.com/{number}.png"},
        "meta": {"created_at": "2026-01-25T07:40:08.333962391Z", "usage": {"type": "point", "consume": 20000}},
        "logs": [],
        "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
    }
    return http_response(orjson.dumps({"code": 200, "data": task, "message": "success"}))
