"""The pages of the dashboard at a million tasks, each read by a person who is signed in, while webhooks come in."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import httpx

from tests.bench.context import SIZES, BenchContext
from tests.bench.databases import API_KEY, KINDS, Store
from tests.bench.load import closed_loop, open_loop, percentiles
from tests.bench.prepared_requests import webhooks
from tests.bench.processes import Service, ringback
from tests.bench.report import at_most
from tests.bench.seed_history import add_history, webhook_id
from tests.bench.seed_rows import MODEL, add_ended_tasks, add_metadata_values, add_pending_tasks, add_statistics

_TIMES = 100
_MODELS = 8
_WAITING = 40_000
_WEBHOOKS_A_SECOND = 20
_PAGE = 50
_TOKEN = re.compile(r'name="csrf" value="([^"]+)"')


def _pages(task_id: str) -> dict[str, str]:
    """Return the paths that are read, by their names in the report."""
    page_100 = base64.urlsafe_b64encode(str(SIZES[-1] - 99 * _PAGE).encode()).decode().rstrip("=")
    queries = {
        "tasks of a status and model": {"status": "failed", "model": MODEL},
        "tasks with a value in their metadata": {"metadata[campaign]": "campaign-7"},
        "tasks searched": {"q": "order-12345"},
        "tasks, page 100": {"cursor": page_100},
    }
    return {
        "overview": "/overview",
        "tasks": "/tasks",
        **{name: f"/tasks?{urlencode(query)}" for name, query in queries.items()},
        "a task": f"/tasks/{task_id}",
        "runs": "/runs",
        "webhooks": "/webhooks",
        "a webhook": f"/webhooks/{webhook_id(7)}",
        "deliveries": "/deliveries",
        "deliveries that were given up": "/deliveries?status=dead",
        "inbound": "/inbound",
        "events": "/events",
    }


async def pages(context: BenchContext) -> None:
    """Measure each page of the dashboard on a million tasks with all that belongs to them (takes minutes)."""
    stores = [await context.databases.new(kind) for kind in KINDS]
    await asyncio.gather(*(asyncio.to_thread(_fill, store) for store in stores))
    for store in stores:
        async with ringback(store) as service:
            head = await _signed_in(service)
            (task_id,) = store.rows(f"SELECT uid FROM task WHERE id = {SIZES[-1] // 2}")[0]
            async with _inbound(service, store):
                for name, path in _pages(str(task_id)).items():
                    await _measure(context, store, service, (name, f"GET {path} HTTP/1.1\r\n{head}".encode()))


async def _measure(context: BenchContext, store: Store, service: Service, page: tuple[str, bytes]) -> None:
    name, request = page
    first = await closed_loop([service.port], [request], connections=1)
    if (status := next(iter(first.statuses))) != b"200":
        context.report.note(f"page {name}", store.kind, f"answers with {status.decode()}: not measured")
        return
    outcome = (await closed_loop([service.port], [request] * _TIMES, connections=1)).expect(b"200")
    p50, p99 = percentiles(outcome.latencies)
    # On a busy machine the quickest shows what the page itself costs.
    context.report.add(f"page {name}, quickest ms", store.kind, min(outcome.latencies) * 1000, form="{:.1f}")
    context.report.add(f"  page {name}, p50 ms", store.kind, p50, form="{:.1f}")
    context.report.add(f"  page {name}, p99 ms", store.kind, p99, form="{:.1f}", aim=at_most(100))


def _fill(store: Store) -> None:
    add_ended_tasks(store, SIZES[-1])
    add_history(store)
    add_statistics(store, _MODELS)
    add_metadata_values(store)
    add_pending_tasks(store, _WAITING)
    store.execute("ANALYZE")
    store.close()


async def _signed_in(service: Service) -> str:
    """Sign in to the dashboard; return the headers of a request of this session."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
        form = await client.get("/sign-in")
        token = _TOKEN.search(form.text)
        if token is None:
            raise SystemExit(f"the page to sign in has no form: {form.status_code} {form.text[:500]}")
        answer = await client.post("/sign-in", data={"key": API_KEY, "csrf": token[1]})
        if answer.status_code not in (302, 303):
            raise SystemExit(f"signing in was answered with {answer.status_code}: {answer.text[:500]}")
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    return f"host: 127.0.0.1:{service.port}\r\naccept: text/html\r\ncookie: {cookies}\r\n\r\n"


@asynccontextmanager
async def _inbound(service: Service, store: Store) -> AsyncIterator[None]:
    """Send inbound webhooks, a few a second, as long as the context lasts."""
    requests = webhooks(range(1, store.tasks + 1))
    load = asyncio.create_task(open_loop(service.port, requests, _WEBHOOKS_A_SECOND))
    try:
        yield
        if load.done():
            raise SystemExit("there were too few webhooks for the whole time")
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
