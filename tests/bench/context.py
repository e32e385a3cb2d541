"""What the parts of the bench share: databases, how often to measure, where figures go."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console

from tests.bench.databases import KINDS, Databases, Store
from tests.bench.report import Report
from tests.bench.seed_rows import add_ended_tasks

SIZES = (10_000, 100_000, 1_000_000)
"""How many tasks there are in tables that have grown."""


@dataclass
class BenchContext:
    """The bench while it runs."""

    databases: Databases
    report: Report
    run_count: int
    _grown: dict[tuple[str, int], Store] = field(default_factory=dict)
    _console: Console = field(default_factory=lambda: Console(stderr=True))

    def runs(self, what: str) -> Iterator[int]:
        """Count the runs of a part, and say so."""
        for number in range(1, self.run_count + 1):
            self._console.print(f"{what}: run {number} of {self.run_count}")
            yield number

    async def with_history(self, kind: str, size: int) -> Store:
        """Return the database whose table has so many old tasks. All of them are made when the first is asked for."""
        if not self._grown:
            self._console.print(f"tables of {', '.join(f'{size:,}' for size in SIZES)} tasks")
            for each in KINDS:
                for grown in SIZES:
                    self._grown[each, grown] = await self.databases.new(each)
            # A thread for each kind of database: the one fills here, the other in its server.
            await asyncio.gather(*(asyncio.to_thread(self._fill, each) for each in KINDS))
        return self._grown[kind, size]

    def _fill(self, kind: str) -> None:
        for size in SIZES:
            add_ended_tasks(self._grown[kind, size], size)
