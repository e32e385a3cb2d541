"""The queries of the statistics and of the free-text search, at a million tasks: each has to be done in 20 ms."""

import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

from sqlalchemy import Executable

from models import StatisticStep
from receiver.clock import utc_now
from receiver.domain.time_steps import spans
from receiver.reporting.statistics import MOST_SHOWN, StatisticRange, Statistics
from receiver.storage.database import Database
from receiver.storage.statistics import reading, standing
from receiver.storage.task_search import search_tasks
from receiver.storage.tasks import TaskFilter
from receiver.storage.transaction import Values
from tests.bench.context import SIZES, BenchContext
from tests.bench.databases import KINDS, Store
from tests.bench.load import percentiles
from tests.bench.report import at_most
from tests.bench.seed_rows import (
    MODEL,
    add_due_deliveries,
    add_metadata_values,
    add_pending_tasks,
    add_statistics,
    task_id,
)

_MODELS = 8
_OPEN_TASKS = 30_000
_TIMES = 30
_WEBHOOK = "01900000-0000-7000-8000-aaaaaaaaaaaa"
_SEARCHES = {
    "task id": task_id(1),
    "beginning of a task id": task_id(1)[:30],
    "provider's id": "p-12",
    "beginning of a provider's id": "p-429496",
    "model": "flux",
    "value of many tasks": "campaign-7",
    "beginning of values": "campaign",
    "value of one task": "order-12345",
    "nothing": "no such thing",
}


async def numbers(context: BenchContext) -> None:
    """Measure each query of the statistics, and searches, on a table of a million tasks with a backlog."""
    for kind in KINDS:
        store = await context.with_history(kind, SIZES[-1])
        _fill(store)
        async with await Database.open(store.settings) as database:
            for name, ask in _queries(database):
                seconds = [await _timed(ask) for _ in range(_TIMES)]
                p50, p99 = percentiles(seconds)
                # On a busy machine the quickest shows what the query itself costs.
                context.report.add(f"{name}, quickest ms", kind, min(seconds) * 1000, form="{:.1f}")
                context.report.add(f"  {name}, p50 ms", kind, p50, form="{:.1f}")
                context.report.add(f"  {name}, p99 ms", kind, p99, form="{:.1f}", aim=at_most(20))


def _fill(store: Store) -> None:
    add_statistics(store, _MODELS)
    add_metadata_values(store)
    no = "false" if not store.is_sqlite else "0"
    yes = "true" if not store.is_sqlite else "1"
    store.execute(
        "INSERT INTO subscription (uid, organization_id, kind, endpoint_url, format, event_types, ordered, signature, "
        f"is_active, created_at, updated_at) VALUES ('{_WEBHOOK}', 1, 'registered', 'https://a.example/', 'standard', "
        f"'[]', {no}, 'v1', {yes}, '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000')"
    )
    add_due_deliveries(store, add_pending_tasks(store, _OPEN_TASKS), _WEBHOOK)
    store.execute("ANALYZE")
    store.close()


def _queries(database: Database) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
    now = utc_now()
    hours = StatisticRange.of(now - timedelta(days=30), now, "hour", now=now)
    minutes = StatisticRange.of(now - timedelta(hours=12), now, "minute", now=now)
    of_all: dict[str, Values] = {
        "oldest due task": {"organization": 1, "now": now},
        "webhooks": {"organization": 1, "most": MOST_SHOWN},
    }
    texts: dict[str, Executable] = {
        "open tasks": standing.open_tasks(1, None),
        "open tasks of a model": standing.open_tasks(1, MODEL),
        "oldest due task": standing.oldest_due_task(),
        "webhooks": standing.webhook_backlogs(),
        "faulty webhooks": standing.faulty_webhooks(1),
        "counted until": reading.first_uncounted(),
    }
    for name, each in (("a month of hours", hours), ("12 hours of minutes", minutes)):
        span = (StatisticStep(each.step), each.since, each.until)
        texts[f"tasks in {name}"] = reading.task_series(1, *span, None)
        texts[f"percentiles of {name}"] = reading.task_sums(1, spans(*span), None)
        texts[f"deliveries in {name}"] = reading.delivery_series(1, 0, span)
        texts[f"latencies of {name}"] = reading.delivery_sums(1, 0, spans(*span))
    for name, query in texts.items():
        yield f"stats: {name}", lambda query=query, name=name: database.read(query, of_all.get(name))  # type: ignore[misc]
    statistics = Statistics(database, {}, 1.0)
    for name, each in (("a month of hours", hours), ("12 hours of minutes", minutes)):
        yield f"all stats of {name}", lambda each=each: statistics.of_organization(1, each, None)  # type: ignore[misc]
    wanted = TaskFilter(organization_id=1)
    for name, text in _SEARCHES.items():
        yield f"search: {name}", lambda text=text: search_tasks(database.read, wanted, text, ("piapi",), 51)  # type: ignore[misc]


async def _timed(ask: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await ask()
    return time.perf_counter() - began
