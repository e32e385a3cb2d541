"""What all parts of the bench share: the databases, the number of runs, and the report."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console

from tests.bench.databases import KINDS, Databases, Store
from tests.bench.report import Report
from tests.bench.seed_rows import add_ended_tasks

SIZES = (10_000, 100_000, 1_000_000)
"""How many tasks the tables have for which the part `growth` measures; `listing` uses the largest."""


@dataclass
class BenchContext:
    """The databases, the report and the number of runs of one bench."""

    databases: Databases
    report: Report
    run_count: int
    scale: int = 1_000_000
    """How many tasks the table has for which the part `scale` measures."""
    _with_history: dict[tuple[str, int], Store] = field(default_factory=dict)
    _console: Console = field(default_factory=lambda: Console(stderr=True))

    def runs(self, what: str) -> Iterator[int]:
        """Yield the numbers of a part's runs from 1, and print each."""
        for number in range(1, self.run_count + 1):
            self.tell(f"{what}: run {number} of {self.run_count}")
            yield number

    def tell(self, progress: str) -> None:
        """Print how far the bench is."""
        self._console.print(progress, highlight=False)

    async def with_history(self, kind: str, size: int) -> Store:
        """Return the database whose table has `size` ended tasks. The first call creates those of all sizes."""
        if not self._with_history:
            self.tell(f"creating tables of {', '.join(f'{size:,}' for size in SIZES)} tasks")
            for each in KINDS:
                for each_size in SIZES:
                    self._with_history[each, each_size] = await self.databases.new(each)
            # One thread for each kind of database: SQLite works in this process, PostgreSQL in its server.
            await asyncio.gather(*(asyncio.to_thread(self._fill, each) for each in KINDS))
        return self._with_history[kind, size]

    def _fill(self, kind: str) -> None:
        for size in SIZES:
            add_ended_tasks(self._with_history[kind, size], size)
