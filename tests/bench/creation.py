"""Creating tasks, a thousand in one call against one a call, with a provider that responds at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import repeat

from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, POSTGRESQL, SQLITE
from tests.bench.load import closed_loop
from tests.bench.prepared_requests import create_many, create_one
from tests.bench.processes import Service, ringback
from tests.bench.provider import KEY, providing
from tests.bench.report import at_least

_MANY = 1_000
_SECONDS = 1.0
_NO_ENDPOINT = (b"404", b"405")
_ROW = "  against one a call"
_AIM = at_least(10)
_SINGLE_AIMS = {SQLITE: at_least(1_200), POSTGRESQL: at_least(1_000)}
_UNLIMITED, _ALMOST_NEVER = "100000/s", "1/h"


@dataclass
class _Creating:
    """Two services on one kind of database. `many` submits almost no task, or it would be busy with submissions."""

    kind: str
    single: Service
    many: Service


async def creation(context: BenchContext) -> None:
    """Measure tasks created a thousand in one call, against one a call."""
    async with AsyncExitStack() as resources:
        provider = await resources.enter_async_context(providing())
        begun = (resources.enter_async_context(_creating(context, kind, provider.base)) for kind in KINDS)
        both = await asyncio.gather(*begun)
        for _ in context.runs("creation"):
            for each in both:
                await _measure(context, each)


async def _measure(context: BenchContext, each: _Creating) -> None:
    add, kind = context.report.add, each.kind
    single = (await closed_loop([each.single.port], repeat(create_one()), seconds=_SECONDS)).expect(b"200").rate
    add("tasks created one a call, a second", kind, single, form="{:,.0f}", aim=_SINGLE_AIMS[kind])
    started = time.perf_counter()
    outcome = await closed_loop([each.many.port], [create_many(_MANY)], connections=1)
    many = _MANY / (time.perf_counter() - started)
    if any(outcome.statuses[status] for status in _NO_ENDPOINT):
        context.report.note(_ROW, kind, "POST /api/v1/tasks does not exist", form="{:.1f} ×", aim=_AIM)
        return
    outcome.expect(b"202")
    add("tasks created a thousand a call, a second", kind, many, form="{:,.0f}")
    add(_ROW, kind, many / single, form="{:.1f} ×", aim=_AIM)


@asynccontextmanager
async def _creating(context: BenchContext, kind: str, provider: str) -> AsyncIterator[_Creating]:
    settings = {"piapi_base_url": provider, "piapi_api_key": KEY}
    one, other = await context.databases.new(kind), await context.databases.new(kind)
    async with (
        ringback(one, {**settings, "provider_rate": _UNLIMITED}) as single,
        ringback(other, {**settings, "provider_rate": _ALMOST_NEVER}) as many,
    ):
        yield _Creating(kind, single, many)
