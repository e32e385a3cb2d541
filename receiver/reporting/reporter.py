"""Makes reports of delivery, one at a time, each from one snapshot of the database and in bounded time."""

import asyncio
from datetime import UTC, datetime, timedelta

from receiver.clock import utc_now
from receiver.domain.representations import iso
from receiver.errors import BadRequest, Unavailable
from receiver.reporting.delivered import DeliveryReport
from receiver.reporting.findings import Findings
from receiver.reporting.keys import chunks_of
from receiver.reporting.made import report_runs, report_tasks
from receiver.storage.database import Database, Snapshot
from receiver.storage.report.subscriptions import ReportedWebhook, any_callback, webhooks_of
from receiver.storage.report.window import EVENT_KEYS, RUN_KEYS, TASK_KEYS, ReportWindow

OVERDUE_AFTER = timedelta(minutes=15)
"""What has been due for longer is listed as overdue: the service may be stopped, or has more to do than it may."""
LONGEST_SECONDS = 50.0
"""How long a report may take: less than a client waits, and a snapshot keeps the databases from cleaning up."""
_BUSY_RETRY_SECONDS = 10
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing was created before, and times before it are too near to the first one that can be calculated with."""


class Reporter:
    """Makes reports. `retention_days` is how long ended tasks are kept; 0 keeps all of them."""

    def __init__(self, database: Database, *, retention_days: int, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days) if retention_days else None
        self._longest = longest_seconds
        self._turn = asyncio.Lock()

    async def report(self, organization_id: int, since: datetime) -> Findings:
        """Return what happened to the organization's tasks, runs and events since then.

        Raises `BadRequest` if `since` is not in the past, or if the range is too large to be read in time, and
        `Unavailable` if another report takes as long as one may.
        """
        now = utc_now()
        if since >= now:
            raise BadRequest("must be in the past", code="invalid_query_params", param="since")
        try:
            async with asyncio.timeout(self._longest):
                await self._turn.acquire()
        except TimeoutError:
            raise Unavailable("another report is being made; try again", retry_after=_BUSY_RETRY_SECONDS) from None
        try:
            async with asyncio.timeout(self._longest):
                return await self._read(organization_id, since)
        except TimeoutError:
            raise BadRequest(
                f"is too early: what was created since {iso(since)} cannot be read within {self._longest:g} s; "
                "choose a later time",
                code="report_too_large",
                param="since",
            ) from None
        finally:
            self._turn.release()

    async def _read(self, organization_id: int, since: datetime) -> Findings:
        async with self._database.snapshot() as snapshot:
            now = utc_now()
            retained = _EARLIEST if self._retention is None else now - self._retention
            oldest = max(since, retained)
            window = ReportWindow(
                organization_id=organization_id, since=oldest, until=now, overdue_before=now - OVERDUE_AFTER
            )
            findings = Findings(oldest, now, is_cut=since < retained and self._retention is not None)
            await report_tasks(snapshot, await chunks_of(snapshot, window, TASK_KEYS), findings)
            await report_runs(snapshot, await chunks_of(snapshot, window, RUN_KEYS), findings)
            await _report_events(snapshot, window, findings)
            return findings


async def _report_events(snapshot: Snapshot, window: ReportWindow, findings: Findings) -> None:
    webhooks = [ReportedWebhook.of(row) for row in await snapshot.read(webhooks_of(window))]
    has_callbacks = bool(await snapshot.read(any_callback(window.organization_id)))
    report = DeliveryReport(snapshot, findings, webhooks, has_callbacks=has_callbacks)
    for chunk in await chunks_of(snapshot, window, EVENT_KEYS):
        await report.add(chunk)
