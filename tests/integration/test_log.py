"""The log of events where several processes write: order, gaps, and news from others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.events import EventFilter
from receiver.storage.transaction import Transaction
from receiver.tracking.announce import Waiting
from receiver.tracking.feed import Feed
from receiver.tracking.follow import Streams
from receiver.tracking.log import Log
from tests.fakes.databases import settings_in
from tests.storage.rows import add_organization, new_event

pytestmark = pytest.mark.postgresql_only("SQLite has one writer")


class Replica:
    """A process's database, feed and log, without the rest of it."""

    def __init__(self, database: Database) -> None:
        assert database.shared is not None
        self.database = database
        self.feed = Feed()
        self.waiting = Waiting()
        self.log = Log(database, database.shared.notices, self.feed, self.waiting)
        self.streams = Streams(database, self.feed, self.log)

    async def write(self, *, hold: Callable[[], Awaitable[None]] | None = None, fail: bool = False) -> int:
        """Write one event; `hold` is awaited before the commit, `fail` rolls back. Return its sequence number."""
        event = new_event(None)

        async def work(tx: Transaction) -> int:
            (key,) = await tx.insert_events([event])
            if hold is not None:
                await hold()
            if fail:
                raise ValueError("rolled back")
            tx.after_commit.append(lambda: self.log.publish([(key, event)]))
            return key

        return await self.database.writer.run(work)

    def seen(self) -> list[int]:
        """Return what its feed has."""
        return [entry.sequence for entry in self.feed.since(self.feed.oldest) or ()]


@asynccontextmanager
async def replica(settings: Settings, *, running: bool = True) -> AsyncIterator[Replica]:
    """Open one; its loops run unless a test moves them itself."""
    async with await Database.open(settings) as database:
        mine = Replica(database)
        await mine.streams.begin()
        assert database.shared is not None
        loops = [mine.log.run(), database.shared.notices.run()] if running else []
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield mine
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    settings = settings_in(tmp_path)
    async with await Database.open(settings) as database:
        assert await add_organization(database) == 1
    return settings


class Gate:
    """Holds a transaction open before its commit."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.opened.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a feed rings for followers, and this looks into it
            await asyncio.sleep(0.005)


async def test_an_event_that_commits_late_is_not_skipped(settings: Settings) -> None:
    async with replica(settings) as slow, replica(settings) as quick, replica(settings, running=False) as reader:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        second = await quick.write()
        reading = asyncio.create_task(reader.log.catch_up())
        await until(lambda: quick.feed.newest < second)  # it cannot be handed on yet, not even where it was written
        assert not reading.done()
        assert reader.seen() == []
        gate.opened.set()
        first = await late
        await reading
        assert first < second
        assert reader.seen() == [first, second]
        await until(lambda: quick.seen() == slow.seen() == [first, second])


async def test_what_was_rolled_back_holds_nobody_up(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings) as reader:
        first = await writer.write()
        with pytest.raises(ValueError, match="rolled back"):
            await writer.write(fail=True)
        third = await writer.write()
        assert third > first + 1
        await until(lambda: reader.feed.newest == third)
        await until(lambda: writer.feed.newest == third)


async def test_a_transaction_of_others_that_writes_no_event_holds_nobody_up(settings: Settings) -> None:
    async with replica(settings) as other, replica(settings, running=False) as reader, replica(settings) as writer:
        gate = Gate()

        async def idle(tx: Transaction) -> None:
            await tx.listeners([1], [])
            await gate()

        waiting = asyncio.create_task(other.database.writer.run(idle))
        await gate.reached.wait()
        with pytest.raises(ValueError, match="rolled back"):
            await writer.write(fail=True)
        key = await writer.write()
        await reader.log.catch_up()
        assert reader.feed.newest == key
        gate.opened.set()
        await waiting


async def test_a_start_in_the_middle_of_anothers_transaction_misses_nothing(settings: Settings) -> None:
    async with replica(settings) as slow, replica(settings) as quick:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        second = await quick.write()
        starting = asyncio.create_task(_start(settings))
        await asyncio.wait({starting}, timeout=0.1)
        assert not starting.done()
        gate.opened.set()
        assert await late < second
        assert await starting >= second


async def _start(settings: Settings) -> int:
    async with replica(settings, running=False) as reader:
        return reader.feed.newest


async def test_others_hear_of_a_commit_at_once(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings) as reader:
        await writer.write()
        await until(lambda: reader.feed.newest == writer.feed.newest)
        began = asyncio.get_running_loop().time()
        key = await writer.write()
        await until(lambda: reader.feed.newest == key)
        assert asyncio.get_running_loop().time() - began < 0.5  # and not at the next look, a second later


async def test_a_notice_that_is_lost_is_made_up_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica(settings) as writer, replica(settings) as reader:
        assert writer.database.shared is not None
        monkeypatch.setattr(writer.database.shared.notices, "send", lambda: None)
        key = await writer.write()
        await until(lambda: reader.feed.newest == key)


async def test_a_position_of_another_process_that_is_ahead_is_reached(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings, running=False) as reader:
        key = await writer.write()
        assert reader.feed.newest < key
        assert await reader.streams.check(1, key) == key


async def test_many_writers_at_once_are_read_once_each_and_in_order(settings: Settings) -> None:
    async with replica(settings) as one, replica(settings) as two, replica(settings) as reader:

        async def write(mine: Replica) -> list[int]:
            keys = []
            for number in range(40):
                try:
                    keys.append(await mine.write(fail=number % 7 == 3))
                except ValueError:
                    continue
            return keys

        written = await asyncio.gather(write(one), write(two))
        keys = sorted(key for mine in written for key in mine)
        for mine in (one, two, reader):
            await until(lambda mine=mine: mine.feed.newest == keys[-1])  # type: ignore[misc]
        assert reader.seen() == [key for key in keys if key > reader.feed.oldest]
        read = await reader.streams.read_after(EventFilter(organization_id=1), 0, len(keys) + 1)
        assert [event["sequence"] for event in read] == keys
