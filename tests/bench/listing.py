"""Listing fifty of a million tasks, filtered by status and model: the latency, and the query plans."""

import base64
import random
from contextlib import AsyncExitStack
from urllib.parse import urlencode

from sqlalchemy.dialects import postgresql, sqlite

from receiver.storage.tasks import TaskFilter, tasks_matching
from tests.bench.context import SIZES, BenchContext
from tests.bench.databases import KINDS, Store
from tests.bench.load import closed_loop, percentiles
from tests.bench.prepared_requests import request
from tests.bench.processes import Service, ringback
from tests.bench.report import at_most
from tests.bench.seed_rows import MODEL, RARE_MODEL

_PAGE = 50
_REQUESTS_OF_EACH = 60
_FILTERS = [(status, model) for status in ("completed", "failed") for model in (MODEL, "kling", RARE_MODEL)]
_PLAN = "full table scans in the plans of a list of tasks"


async def listing(context: BenchContext) -> None:
    """Measure pages at the front of the list and deep in it, for frequent and for rare statuses and models."""
    async with AsyncExitStack() as resources:
        services: list[tuple[Store, Service]] = []
        for kind in KINDS:
            store = await context.with_history(kind, SIZES[-1])
            services.append((store, await resources.enter_async_context(ringback(store))))
            scans = [pair for pair in _FILTERS if _is_full_scan(store, _plan(store, *pair))]
            context.report.add(_PLAN, kind, len(scans), form="{:.0f}", aim=at_most(0))
        for number in context.runs("listing"):
            for store, service in services:
                requests = page_requests(random.Random(number), SIZES[-1])
                outcome = (await closed_loop([service.port], requests, connections=1)).expect(b"200")
                p50, p99 = percentiles(outcome.latencies)
                add = context.report.add
                add("list 50 of 1,000,000 tasks, p50 ms", store.kind, p50, form="{:.1f}")
                add("  list 50 of 1,000,000 tasks, p99 ms", store.kind, p99, form="{:.1f}", aim=at_most(20))


def page_requests(rng: random.Random, size: int) -> list[bytes]:
    """Return requests for pages of a list of `size` tasks in a random order.

    About half of them have a cursor to a random place in the list.
    """
    requests = []
    for status, model in _FILTERS * _REQUESTS_OF_EACH:
        query: dict[str, str | int] = {"status": status, "model": model, "limit": _PAGE}
        if rng.random() < 0.5:
            query["cursor"] = base64.urlsafe_b64encode(str(rng.randrange(1, size)).encode()).decode().rstrip("=")
        requests.append(request("GET", f"/api/v1/tasks?{urlencode(query)}"))
    rng.shuffle(requests)
    return requests


def _plan(store: Store, status: str, model: str) -> str:
    """Return the database's plan for the query of a list, as text."""
    query = tasks_matching(TaskFilter(organization_id=1, status=status, model=model), _PAGE + 1)
    dialect = sqlite.dialect() if store.is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN "
    return "\n".join(str(row[-1]) for row in store.rows(explain + sql))


def _is_full_scan(store: Store, plan: str) -> bool:
    return "SCAN task" in plan if store.is_sqlite else "Seq Scan on task" in plan
