"""How many deliveries of one webhook the dispatcher claims at once: many, but where an endpoint fails.

And what becomes of those that wait in its memory for longer than their leases allow.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import func, select

from models import DeliveryStatus
from receiver.clock import utc_now
from receiver.domain.limit_parts import whole
from receiver.domain.load_shares import LoadShares
from receiver.organization_limits import OrganizationLimits
from receiver.outbound.deliver import Attempted, Deliverer, PreparedDelivery
from receiver.storage.database import Database
from receiver.storage.tables import deliveries
from receiver.storage.transaction import LeasedDelivery
from receiver.workers.dispatch import DeliveryDispatcher
from tests.storage.rows import (
    add_organization,
    add_subscription,
    add_tasks,
    new_delivery,
    new_event,
    new_settlement,
    task_row,
)


class Endpoints:
    """Stands for the deliverer: attempts at one webhook fail, and those at others do not begin."""

    def __init__(self, failing: int | None = None) -> None:
        self.failing = failing
        self.has_failed, self.others_asked = asyncio.Event(), asyncio.Event()
        self.asked: list[int] = []
        """The attempts that were prepared."""

    async def prepare(self, leases: Sequence[LeasedDelivery]) -> list[PreparedDelivery]:
        self.asked += [each.attempt for each in leases]
        if any(each.subscription_id != self.failing for each in leases):
            self.others_asked.set()
            await asyncio.Event().wait()
        return [prepared(each) for each in leases]

    async def attempt(self, delivery: PreparedDelivery) -> Attempted:
        lease, later = delivery.lease, utc_now() + timedelta(hours=1)
        failed = {"status": DeliveryStatus.PENDING, "status_code": 500, "due_at": later, "settled_at": None}
        settlement = new_settlement(lease.id, lease.subscription_id, **failed)
        return Attempted(settlement, slow_down=False, gone=False, retry_after=0.0)

    async def settle(self, *_: Any, **__: Any) -> None:
        self.has_failed.set()


def prepared(lease: LeasedDelivery) -> PreparedDelivery:
    ids: dict[str, Any] = {"uid": "", "event_uid": "", "webhook_uid": None, "task_uid": None}
    return PreparedDelivery(lease=lease, organization_id=1, url="", message="", **ids)


@asynccontextmanager
async def dispatching(database: Database, endpoints: Endpoints) -> AsyncIterator[DeliveryDispatcher]:
    dispatcher = DeliveryDispatcher(
        timeout=1.0,
        connections=64,
        limits_of=lambda _: OrganizationLimits(),
        part=whole,
        load_shares=LoadShares(),
    )
    dispatcher.connect(database, cast(Deliverer, endpoints))
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def add_due(database: Database, subscription: int, count: int) -> None:
    (task,) = await add_tasks(database, task_row())
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(task)]))
    new = [new_delivery(subscription, event, task, due_at=utc_now()) for _ in range(count)]
    await database.writer.run(lambda tx: tx.insert_deliveries(new))


async def leased(database: Database, subscription: int) -> int:
    of_it = (deliveries.c.subscription_id == subscription, deliveries.c.leased)
    (row,) = await database.read(select(func.count().label("count")).where(*of_it))
    return int(row["count"])


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    assert await add_organization(database) == 1


async def test_one_webhook_gets_all_that_its_organization_may_have_of_a_claim(database: Database) -> None:
    webhook, endpoints = await add_subscription(database), Endpoints()
    await add_due(database, webhook, 500)
    async with dispatching(database, endpoints):
        await endpoints.others_asked.wait()
        assert await leased(database, webhook) == 400


async def test_a_claim_is_small_while_an_endpoint_fails(database: Database) -> None:
    failing, webhook = await add_subscription(database), await add_subscription(database)
    endpoints = Endpoints(failing)
    await add_due(database, failing, 1)
    async with dispatching(database, endpoints) as dispatcher:
        await endpoints.has_failed.wait()
        await add_due(database, webhook, 500)
        dispatcher.wake()
        await endpoints.others_asked.wait()
        assert await leased(database, webhook) == 100


async def test_deliveries_whose_leases_end_too_soon_are_given_back_and_claimed_again_at_once(
    database: Database,
) -> None:
    webhook, endpoints = await add_subscription(database, rate_limit=1), Endpoints()
    await add_due(database, webhook, 20)
    now = utc_now()
    claimed = await database.writer.run(
        lambda tx: tx.claim_deliveries(
            now, now + timedelta(seconds=5), 20, [], of_organization=20, skip_organizations=[]
        )
    )
    assert len(claimed) == 20
    async with dispatching(database, endpoints) as dispatcher:
        dispatcher.hand_over(claimed)
        async with asyncio.timeout(3):
            await endpoints.others_asked.wait()
        assert endpoints.asked == [1]  # as if it had never been claimed before
