"""Recovery after downtime: ten thousand polls are due when the service starts, and a client sends requests too."""

import asyncio
import time

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, Store
from tests.bench.load import percentiles
from tests.bench.prepared_requests import read_response, request
from tests.bench.processes import Service, ringback
from tests.bench.provider import KEY, Provider, providing
from tests.bench.report import at_least, at_most
from tests.bench.seed_rows import add_pending_tasks, task_id

_DUE = 10_000
_RATE_LIMIT = 2_000
_LONGEST_SECONDS = 6.0
_PROBE_SECONDS = 0.01


async def recovery(context: BenchContext) -> None:
    """Measure the rate of polls after downtime, and the latency of other requests at the same time."""
    async with providing() as provider:
        for _ in context.runs("recovery"):
            for kind in KINDS:
                store = await context.databases.new(kind)
                await _measure(context, store, provider)
                context.databases.drop(store)


async def _measure(context: BenchContext, store: Store, provider: Provider) -> None:
    add_pending_tasks(store, _DUE, due_in=-1)
    provider.polled.clear()
    settings = {"piapi_base_url": provider.base, "piapi_api_key": KEY, "provider_rate": f"{_RATE_LIMIT}/s"}
    async with ringback(store, settings) as service:
        started, before = time.perf_counter(), len(provider.polled)
        stopped = asyncio.Event()
        probing = asyncio.create_task(_probe(service, stopped))
        await provider.all_polled(_DUE, _LONGEST_SECONDS)
        seconds = time.perf_counter() - started
        stopped.set()
        latencies = await probing
    polls = (len(provider.polled) - before) / seconds
    p50, p99 = percentiles(latencies)
    add = context.report.add
    slowest = max(latencies) * 1000
    add("10,000 due tasks: polls a second", store.kind, polls, form="{:,.0f}")
    add("  against the provider's rate limit", store.kind, polls / _RATE_LIMIT, form="{:.0%}", aim=at_least(0.95))
    add("  GET of one task at the same time, p50 ms", store.kind, p50, form="{:.1f}")
    add("  GET of one task at the same time, p99 ms", store.kind, p99, form="{:.1f}")
    add("  GET of one task at the same time, slowest, ms", store.kind, slowest, form="{:.0f}", aim=at_most(50))


async def _probe(service: Service, stopped: asyncio.Event) -> list[float]:
    """Request one task every `_PROBE_SECONDS` until stopped; return the latencies in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    get_task, latencies = request("GET", f"/api/v1/tasks/{task_id(_DUE)}"), []
    while not stopped.is_set():
        sent = time.perf_counter()
        writer.write(get_task)
        await read_response(reader)
        latencies.append(time.perf_counter() - sent)
        await asyncio.sleep(_PROBE_SECONDS)
    writer.close()
    return latencies
