"""A history of one organization, made by the service's own code, and the report of it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import insert, select, update

from models import DeliveryStatus, TaskStatus
from receiver.clock import utc_now
from receiver.reporting.findings import Findings
from receiver.reporting.reporter import Reporter
from receiver.storage.tables import deliveries, delivery_attempts
from receiver.storage.transaction import Transaction
from receiver.tracking.create import Callback
from receiver.tracking.retry import Retrier, RetryRequest
from tests.integration.harness import TrackingHarness

HOUR = timedelta(hours=1)
CALLBACK = Callback(endpoint_url="https://example.com/own", secret=None, fingerprint="of-a-callback")
OUTPUT = {"image_url": "https://x.example/a.png"}


class History:
    """Tasks, webhooks and deliveries of the service's own making, for one organization."""

    def __init__(self, harness: TrackingHarness, organization_id: int) -> None:
        self.harness = harness
        self.organization_id = organization_id
        self.task = ""

    async def subscribe(self, **fields: Any) -> int:
        """Register for every event, so long ago that no event may be from before; return the key."""
        given = {"created_at": utc_now() - HOUR, "updated_at": utc_now() - HOUR, **fields}
        return await self.harness.subscribe(organization_id=self.organization_id, **given)

    async def create(self, **fields: Any) -> str:
        self.task = await self.harness.create(organization_id=self.organization_id, **fields)
        return self.task

    async def end(self, status: TaskStatus = TaskStatus.COMPLETED, task: str | None = None) -> None:
        output = OUTPUT if status == TaskStatus.COMPLETED else None
        await self.harness.receive(status, task or self.task, provider_task_id=f"pt-{task or self.task}", output=output)

    async def retry(self, task: str | None = None) -> None:
        retrier = Retrier(self.harness.applier.after_commit)
        await self.harness.database.writer.write(retrier.retry, RetryRequest(task or self.task))

    async def change(self, *statements: Any) -> None:
        async def work(tx: Transaction) -> None:
            for statement in statements:
                await tx.execute(statement)

        await self.harness.database.writer.run(work)

    async def deliver(self, status: DeliveryStatus = DeliveryStatus.DELIVERED, status_code: int = 200) -> None:
        """Settle every pending delivery of the organization, with an attempt."""
        now = utc_now()
        pending = (deliveries.c.organization_id == self.organization_id, deliveries.c.status == DeliveryStatus.PENDING)
        rows = await self.harness.database.read(select(deliveries.c.id, deliveries.c.attempt).where(*pending))
        attempts = [
            {
                "delivery_id": row["id"],
                "number": row["attempt"] + 1,
                "started_at": now,
                "duration_ms": 1,
                "status_code": status_code,
            }
            for row in rows
        ]
        if attempts:
            settled = {"status": status, "due_at": None, "leased": False, "settled_at": now}
            await self.change(
                insert(delivery_attempts).values(attempts),
                update(deliveries).where(*pending).values(**settled, attempt=deliveries.c.attempt + 1),
            )

    async def uids(self, table: Any) -> set[str]:
        return {row["uid"] for row in await self.harness.database.read(select(table.c.uid))}

    async def report(self, **settings: Any) -> Findings:
        reporter = Reporter(self.harness.database, **{"retention_days": 90, **settings})
        return await reporter.report(self.organization_id, utc_now() - 24 * HOUR)
