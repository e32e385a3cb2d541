"""Events whose COMMIT is under way in another process are missed by none, and sessions of others delay none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from models import EventType
from receiver.clock import utc_now
from receiver.errors import StorageUnavailable
from receiver.outbound import replays
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.open_writers import EVENTS, OpenWriters
from receiver.storage.transaction import NewEvent, Transaction
from tests.fakes.databases import outside
from tests.fakes.past_events import hours_ago
from tests.fakes.rows import DELIVERIES, eventually
from tests.fakes.world import World
from tests.integration.test_postgresql_log import Gate, Replica, replica, settings
from tests.storage.rows import new_event

__all__ = ["settings"]  # the fixture

pytestmark = pytest.mark.postgresql_only("SQLite has one writer")

FOREIGN_EVENT = (
    "INSERT INTO event (uid, organization_id, type, snapshot, created_at) "
    "VALUES (gen_random_uuid(), 1, 'task.completed', '{}', now())"
)


@asynccontextmanager
async def committing(world: World) -> AsyncIterator[tuple[NewEvent, Gate]]:
    """Another process has written an event that it matched before, and has not committed it: until the gate opens."""
    gate, event = Gate(), new_event(None, type=EventType.TASK_COMPLETED, created_at=utc_now())

    async def work(tx: Transaction) -> None:
        await tx.insert_events([event])
        await gate()

    async with await Database.open(world.settings) as other:
        writing = asyncio.create_task(other.writer.run(work))
        await gate.reached.wait()
        try:
            yield event, gate
        finally:
            gate.opened.set()
            await writing


async def test_a_replay_sends_an_event_whose_commit_was_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "_COUNT_SECONDS", 0.01)
    webhook = await world.webhook()
    async with committing(world) as (event, gate):
        answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json={"since": hours_ago(1)})
        assert answer.json()["data"]["deliveries"] == 0
        gate.opened.set()
        await eventually(world, DELIVERIES, lambda rows: [row["event"] for row in rows] == [event.uid])


async def test_a_webhook_is_registered_when_no_event_from_before_can_still_be_committed(world: World) -> None:
    async with committing(world) as (_, gate):
        registering = asyncio.create_task(world.webhook())
        await asyncio.wait({registering}, timeout=0.1)
        assert not registering.done()
        gate.opened.set()
        await registering


async def test_a_foreign_transaction_on_the_table_of_events_delays_nothing(world: World) -> None:
    with outside(world.database) as foreign:
        foreign.execute("BEGIN")
        foreign.execute(FOREIGN_EVENT)
        webhook = await world.webhook()
        async with replica(world.settings) as reader, replica(world.settings) as writer:
            key = await writer.write()
            await reader.log.catch_up()
            assert reader.feed.newest == key
            assert await (await OpenWriters.of(reader.database, EVENTS)).ended(0)
            answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json={"since": hours_ago(1)})
            assert answer.status_code == 202
        foreign.execute("ROLLBACK")


async def test_a_start_is_quick_while_another_process_hangs_and_its_streams_begin_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.events.postgresql_log._BEGIN_SECONDS", 0.05)
    monkeypatch.setattr("receiver.events.postgresql_log._READ_SECONDS", 0.05)
    async with replica(settings) as slow:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        async with replica(settings) as started:
            with pytest.raises(StorageUnavailable, match="try again"):
                await started.streams.now()
            gate.opened.set()
            await _begun_after(await late, started)


async def _begun_after(event: int, mine: Replica) -> None:
    """Wait until the streams of this replica begin after an event. Until then they are behind, or not begun."""
    async with asyncio.timeout(10):
        while True:
            with suppress(StorageUnavailable):
                if await mine.streams.now() == event:
                    return


async def test_writers_that_do_not_end_are_given_up_after_the_bound(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.storage.open_writers.MOST_SECONDS", 0.05)
    async with replica(settings) as slow, replica(settings, running=False) as reader:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        writers = await OpenWriters.of(reader.database, EVENTS)
        assert not await writers.ended(0.01)
        assert await writers.ended(10)
        gate.opened.set()
        await late
