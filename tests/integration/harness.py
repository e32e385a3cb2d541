"""Tracking on a real database, without HTTP: the update path and what it writes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from models import EventType, SubscriptionKind, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.domain.schedules import PollSchedule
from receiver.domain.updates import ProviderUpdate, Source
from receiver.events.after_commit import AfterCommit, Waiting, WakeTimer
from receiver.events.feed import Feed
from receiver.events.system import SystemEvents
from receiver.providers import (
    AccountCheck,
    CallerKey,
    FetchOutcome,
    Headers,
    Provider,
    Providers,
    Signature,
    WebhookOutcome,
)
from receiver.providers.piapi import PiAPI
from receiver.runs.advance import Advancer
from receiver.storage.database import Database
from receiver.storage.organizations import ensure_organization
from receiver.storage.tables import deliveries, events, organizations, receipts, subscriptions, tasks
from receiver.storage.transaction import LeasedDelivery
from receiver.tracking.apply import Applied, Applier
from receiver.tracking.create import Callback, Creator, TaskRequest
from receiver.tracking.poll import MissingRule, Poller
from receiver.tracking.stuck import StuckTasks
from receiver.tracking.submit import Submitter
from receiver.tracking.update_batch import Arrival
from tests.fakes.databases import outside, settings_in

SCHEDULE = PollSchedule(first=15, longest=300, timeout=86400)
LEASE = 60.0
STUCK = 3600.0
KEYRING = KeyRing(["a-master-key-for-tests"])
_REFUSE_ON_SQLITE = [
    "CREATE TRIGGER no_delivery BEFORE INSERT ON delivery BEGIN SELECT RAISE(ABORT, 'no delivery'); END"
]
_REFUSE_ON_POSTGRESQL = [
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no delivery'; END $$",
    "CREATE TRIGGER no_delivery BEFORE INSERT ON delivery EXECUTE FUNCTION refuse()",
]


class FakeDispatcher:
    """A dispatcher that only records what it is handed."""

    def __init__(self) -> None:
        self.handed: list[LeasedDelivery] = []
        self.wakes = 0
        self.is_full = False

    def has_room(self, subscription_id: int, organization_id: int) -> bool:
        return not self.is_full

    def hand_over(self, deliveries: Sequence[LeasedDelivery]) -> None:
        self.handed.extend(deliveries)

    def wake(self) -> None:
        self.wakes += 1


class BaseFakeProvider:
    """A `Provider` of which a subclass defines `submit`, `fetch`, `cancel` and `history`."""

    name = "piapi"
    capabilities = PiAPI.capabilities

    async def find(
        self, reference: str, *, model: str, task_type: str, attempt: int | None, caller: CallerKey | None = None
    ) -> FetchOutcome:
        raise NotImplementedError

    async def check_signature(self, body: bytes, headers: Headers) -> Signature:
        raise NotImplementedError

    async def check_account(self) -> AccountCheck:
        raise NotImplementedError

    def parse_webhook(self, body: bytes, *, attempt: int | None = None, hidden: str = "") -> WebhookOutcome:
        raise NotImplementedError

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        raise NotImplementedError

    def redact(self, body: bytes, *, hidden: str = "") -> str:
        raise NotImplementedError

    def key_refusal(self) -> str | None:
        return None

    def paused_for(self) -> float:
        return 0.0

    async def aclose(self) -> None:
        return


class TrackingHarness:
    """A database with the update path, and shortcuts for tests of tracking."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.organization_uid = ""
        """The id of `default`."""
        self.dispatcher = FakeDispatcher()
        self.waiting = Waiting()
        after_commit = AfterCommit(
            waiting=self.waiting, dispatcher=self.dispatcher, due=WakeTimer(), publisher=Feed(), lease_seconds=LEASE
        )
        self.applier = Applier(SCHEDULE, after_commit, Advancer(after_commit.due))
        self.system_events = SystemEvents(after_commit)
        self.creator = Creator(after_commit, lease_seconds=LEASE)

    def calling(self, provider: Provider) -> tuple[Submitter, Poller]:
        """Return what sends tasks to a provider, and what polls it."""
        providers = Providers({"piapi": provider})
        submitter = Submitter(self.database, self.applier, providers, KEYRING, None, lease_seconds=LEASE)
        missing = MissingRule(polls=3, seconds=120)
        poller = Poller(
            self.database,
            self.applier,
            submitter,
            providers,
            KEYRING,
            unknown_seconds=600,
            missing=missing,
            stuck=StuckTasks(self.database.writer, self.system_events, STUCK),
        )
        return submitter, poller

    async def create(self, callback: Callback | None = None, organization_id: int = 1, **fields: Any) -> str:
        """Create a task; return its id."""
        request = TaskRequest(
            organization_id=organization_id,
            provider="piapi",
            model="flux",
            task_type="txt2img",
            input={"prompt": "a cat"},
            callback=callback,
            **fields,
        )
        return (await self.database.writer.write(self.creator.create, request)).uid

    async def receive(self, status: TaskStatus | None, task_uid: str | None = None, **fields: Any) -> Applied:
        """Apply an update as from a webhook: of this task, or of the one that has the provider's id."""
        return await self.apply(arrival(status, task_uid, **fields))

    async def apply(self, arriving: Arrival) -> Applied:
        return await self.database.writer.write(self.applier.apply, arriving)

    async def apply_together(self, *arriving: Arrival) -> list[Any]:
        """Apply several in one transaction; an error is returned in its place."""
        return await asyncio.gather(*map(self.apply, arriving), return_exceptions=True)

    async def subscribe(self, **fields: Any) -> int:
        """Register for every event; return the subscription's key."""
        given = {
            "uid": new_id(),
            "organization_id": 1,
            "kind": SubscriptionKind.REGISTERED,
            "endpoint_url": "https://example.com/events",
            "format": "standard",
            "event_types": list(EventType),
            "is_active": True,
            "created_at": utc_now(),
            "updated_at": utc_now(),
            **fields,
        }
        await self.database.writer.run(lambda tx: tx.execute(insert(subscriptions), [given]))
        found = await self.database.read(select(subscriptions.c.id).where(subscriptions.c.uid == given["uid"]))
        return int(found[0]["id"])

    async def organization(self, name: str) -> int:
        return await self.database.writer.run(lambda tx: ensure_organization(tx, name, utc_now()))

    async def task(self, uid: str) -> dict[str, Any]:
        (row,) = await self.database.read(select(tasks).where(tasks.c.uid == uid))
        return row

    async def tasks(self) -> list[dict[str, Any]]:
        return await self.database.read(select(tasks).order_by(tasks.c.id))

    async def events(self) -> list[dict[str, Any]]:
        return await self.database.read(select(events).order_by(events.c.id))

    async def types(self) -> list[str]:
        return [row["type"] for row in await self.events()]

    async def deliveries(self) -> list[dict[str, Any]]:
        return await self.database.read(select(deliveries).order_by(deliveries.c.id))

    async def receipts(self) -> list[dict[str, Any]]:
        return await self.database.read(select(receipts).order_by(receipts.c.id))

    async def delivered(self) -> list[tuple[int, str]]:
        """Return (subscription, event type) of every delivery."""
        query = select(deliveries.c.subscription_id, events.c.type).join(events, events.c.id == deliveries.c.event_id)
        return [(row["subscription_id"], row["type"]) for row in await self.database.read(query.order_by(events.c.id))]

    def refuse_deliveries(self) -> None:
        """Make the database refuse to insert deliveries."""
        with outside(self.url) as database:
            for statement in _REFUSE_ON_SQLITE if self.url.startswith("sqlite:") else _REFUSE_ON_POSTGRESQL:
                database.execute(statement)

    def accept_deliveries(self) -> None:
        """Make the database insert deliveries again."""
        with outside(self.url) as database:
            database.execute(f"DROP TRIGGER no_delivery {'' if self.url.startswith('sqlite:') else 'ON delivery'}")


def arrival(status: TaskStatus | None, task_uid: str | None = None, **fields: Any) -> Arrival:
    """Return an update as from a webhook, to be applied; `body` is the text that a receipt keeps."""
    body = fields.pop("body", "the body")
    given = {"source": Source.WEBHOOK, "status": status, "provider_task_id": "pt-1", **fields}
    return Arrival(
        provider="piapi",
        task_uid=task_uid,
        update=ProviderUpdate(**given),
        body=None if body is None else lambda: body,
    )


@asynccontextmanager
async def tracking(folder: Path) -> AsyncIterator[TrackingHarness]:
    """Open a database with the organization `default`, and the update path on it."""
    settings = settings_in(folder)
    async with await Database.open(settings) as database:
        harness = TrackingHarness(settings.database_url, database)
        assert await harness.organization("default") == 1
        (row,) = await database.read(select(organizations.c.uid))
        harness.organization_uid = row["uid"]
        yield harness
