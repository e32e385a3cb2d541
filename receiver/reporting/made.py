"""The part of a report about tasks and runs: created = ended + open, and each end has its event."""

from collections import Counter
from collections.abc import Callable, Iterable

from receiver.domain.gaps import GapKind
from receiver.reporting.findings import Findings, Made
from receiver.storage.database import Query, Snapshot
from receiver.storage.report.runs import count_runs, runs_standing
from receiver.storage.report.standings import ENDED, OPEN, OVERDUE
from receiver.storage.report.tasks import count_tasks, tasks_standing
from receiver.storage.report.window import Chunk

ListRows = Callable[[Chunk, str, int], Query]


async def report_tasks(snapshot: Snapshot, chunks: Iterable[Chunk], findings: Findings) -> None:
    """Add the tasks of these chunks to the findings."""
    for chunk in chunks:
        await _report(snapshot, chunk, findings, findings.tasks, count_tasks(chunk), tasks_standing)


async def report_runs(snapshot: Snapshot, chunks: Iterable[Chunk], findings: Findings) -> None:
    """Add the runs of these chunks to the findings."""
    for chunk in chunks:
        await _report(snapshot, chunk, findings, findings.runs, count_runs(chunk), runs_standing)


async def _report(
    snapshot: Snapshot, chunk: Chunk, findings: Findings, made: Made, counts: Query, rows_standing: ListRows
) -> None:
    to_list: Counter[str] = Counter()
    for row in await snapshot.read(counts):
        standing, count = row["standing"], row["count"]
        made.created += count
        made.by_status[row["status"]] += count
        if standing == ENDED:
            made.ended += count
        elif standing in (OPEN, OVERDUE):
            made.open += count
        if standing not in (ENDED, OPEN):
            to_list[standing] += count
    for standing, count in to_list.items():
        listing = findings.overdue_tasks if standing == OVERDUE else findings.gap(GapKind(standing))
        rows = await snapshot.read(rows_standing(chunk, standing, listing.room)) if listing.room else []
        listing.add(count, rows)
