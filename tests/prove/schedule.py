"""The order of a proof: campaigns and mutants in two lanes side by side, of which only one uses PostgreSQL at a time.

All PostgreSQL databases of a proof are on one server, which some campaigns stop: so their campaigns run one after the
other. A SQLite file belongs to its campaign, so those fill both lanes.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.prove.stores import Kind

LANES = 2


@dataclass(frozen=True)
class Job:
    """One campaign, or one mutant with its campaign."""

    kind: Kind
    run: Callable[[], Awaitable[None]]


async def run_all(jobs: Sequence[Job]) -> None:
    """Run all jobs: those of each kind begin in the order in which they are given."""
    on_postgresql = deque(job for job in jobs if job.kind == "postgresql")
    on_sqlite = deque(job for job in jobs if job.kind == "sqlite")

    async def lane(*queues: deque[Job]) -> None:
        while queue := next(filter(None, queues), None):
            await queue.popleft().run()

    async with asyncio.TaskGroup() as lanes:
        lanes.create_task(lane(on_postgresql, on_sqlite))
        lanes.create_task(lane(on_sqlite))
