"""After downtime: ten thousand tasks are due when the service starts, and clients ask all the while."""

import asyncio
import time

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, Store
from tests.bench.load import percentiles
from tests.bench.prepared_requests import request
from tests.bench.processes import Service, ringback
from tests.bench.provider import KEY, Provider, providing
from tests.bench.report import at_least, at_most
from tests.bench.seed_rows import add_pending_tasks, task_id

_DUE = 10_000
_BUDGET = 2_000
_ALLOWED_SECONDS = _DUE / _BUDGET
_LONGEST_SECONDS = 6.0
_PROBE_SECONDS = 0.01


async def recovery(context: BenchContext) -> None:
    """Measure how fast they are looked at, and how long others wait meanwhile."""
    async with providing() as provider:
        for _ in context.runs("recovery"):
            for kind in KINDS:
                store = await context.databases.new(kind)
                await _measure(context, store, provider)
                context.databases.drop(store)


async def _measure(context: BenchContext, store: Store, provider: Provider) -> None:
    add_pending_tasks(store, _DUE, due_in=-1)
    provider.polled.clear()
    settings = {"piapi_base_url": provider.base, "piapi_api_key": KEY, "provider_rate": f"{_BUDGET}/s"}
    async with ringback(store, settings) as service:
        started, before = time.perf_counter(), len(provider.polled)
        stopped = asyncio.Event()
        probing = asyncio.create_task(_probe(service, stopped))
        await provider.all_polled(_DUE, _LONGEST_SECONDS)
        seconds = time.perf_counter() - started
        stopped.set()
        waits = await probing
    looks = (len(provider.polled) - before) / seconds
    middle, slow = percentiles(waits)
    add = context.report.add
    add("10,000 due tasks: looks a second", store.kind, looks, form="{:,.0f}")
    add("  of what the provider's budget allows", store.kind, looks / _BUDGET, form="{:.0%}", aim=at_least(0.9))
    add("  a light request meanwhile, p50 ms", store.kind, middle, form="{:.1f}")
    add("  a light request meanwhile, p99 ms", store.kind, slow, form="{:.1f}")
    add("  a light request meanwhile, the longest, ms", store.kind, max(waits) * 1000, form="{:.0f}", aim=at_most(50))


async def _probe(service: Service, stopped: asyncio.Event) -> list[float]:
    """Ask for one task every now and then; return how long each answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    light, waits = request("GET", f"/api/v1/tasks/{task_id(_DUE)}"), []
    while not stopped.is_set():
        asked = time.perf_counter()
        writer.write(light)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ", 1)[1].split(b"\r", 1)[0]))
        waits.append(time.perf_counter() - asked)
        await asyncio.sleep(_PROBE_SECONDS)
    writer.close()
    return waits
