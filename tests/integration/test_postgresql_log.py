"""The log of events with several writing processes: order, gaps, and events of other processes."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import pytest

from receiver.domain.ids import new_id
from receiver.events.after_commit import Waiting
from receiver.events.feed import Feed
from receiver.events.postgresql_log import PostgreSQLLog
from receiver.events.stream import Follower, Streams
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.events import EventFilter
from receiver.storage.postgresql.server import connect_raw
from receiver.storage.transaction import Transaction
from tests.fakes.databases import settings_in
from tests.storage.rows import add_organization, new_event

pytestmark = pytest.mark.postgresql_only("SQLite has one writer")

ALL = EventFilter(organization_id=1)
_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


class Replica:
    """The database, feed and log of one process, without the rest of the service."""

    def __init__(self, database: Database) -> None:
        assert database.shared is not None
        self.database = database
        self.feed = Feed()
        self.waiting = Waiting()
        self.log = PostgreSQLLog(database, database.shared.notices, self.feed, self.waiting)
        self.streams = Streams(database, self.feed, self.log)

    async def write(
        self, *, hold: Callable[[], Awaitable[None]] | None = None, fail: bool = False, run_uid: str | None = None
    ) -> int:
        """Write one event; `hold` is awaited before the commit, `fail` rolls back. Return its sequence number."""
        event = new_event(None, run_uid=run_uid)

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
        """Return the sequence numbers that its feed has in memory."""
        return [entry.sequence for entry in self.feed.since(self.feed.oldest) or ()]

    @property
    def is_behind(self) -> bool:
        """Whether there are events that it has not begun to read."""
        assert self.database.shared is not None
        return self.database.shared.notices.received.is_set()


@asynccontextmanager
async def replica(settings: Settings, *, running: bool = True, followed: bool = True) -> AsyncIterator[Replica]:
    """Open a replica. `running`: its loops run. `followed`: a client follows its stream from the start."""
    async with await Database.open(settings) as database, AsyncExitStack() as stack:
        mine = Replica(database)
        await mine.streams.begin()
        if followed:
            stack.enter_context(mine.streams.follow(ALL, mine.feed.newest))
        assert database.shared is not None
        loops = [mine.log.run(), database.shared.notices.run()] if running else []
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            if running and not followed:
                await until(lambda: mine.is_behind)  # by the notices that were sent before it listened
                await mine.log.catch_up()
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


async def read_to(last: int, follower: Follower) -> list[int]:
    """Follow up to an event; return the sequence numbers that were read."""
    found: list[int] = []
    async with asyncio.timeout(10):
        while found[-1:] != [last]:
            frames = await follower.read()
            found += [int(_ID.findall(frame)[0]) for frame in frames]
            if not frames:
                await follower.wait(10)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the feed wakes followers only, and this reads its state
            await asyncio.sleep(0.005)


async def test_an_event_that_commits_late_is_not_skipped(settings: Settings) -> None:
    async with replica(settings) as slow, replica(settings) as quick, replica(settings, running=False) as reader:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        second = await quick.write()
        reading = asyncio.create_task(reader.log.catch_up())
        await until(lambda: quick.feed.newest < second)  # not published yet, not even in the process that wrote it
        assert not reading.done()
        assert reader.seen() == []
        gate.opened.set()
        first = await late
        await reading
        assert first < second
        assert reader.seen() == [first, second]
        await until(lambda: quick.seen() == slow.seen() == [first, second])


async def test_a_rolled_back_event_delays_no_other(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings) as reader:
        first = await writer.write()
        with pytest.raises(ValueError, match="rolled back"):
            await writer.write(fail=True)
        third = await writer.write()
        assert third > first + 1
        await until(lambda: reader.feed.newest == third)
        await until(lambda: writer.feed.newest == third)


async def test_a_transaction_that_writes_no_event_delays_no_event(settings: Settings) -> None:
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


async def test_a_start_during_another_processs_transaction_misses_no_event(settings: Settings) -> None:
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


async def test_other_processes_read_a_commit_at_once(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings) as reader:
        await writer.write()
        await until(lambda: reader.feed.newest == writer.feed.newest)
        delays = [await _delay(writer, reader) for _ in range(5)]
        assert median(delays) < 0.25, delays  # and not only at the next read, up to a second later


async def test_a_process_that_begins_later_reads_the_next_commits_at_once(settings: Settings) -> None:
    async with replica(settings) as writer:
        for _ in range(3):  # it is alone, and knows it
            await writer.write()
            await asyncio.sleep(0.05)
        async with replica(settings) as reader:
            delays = [await _delay(writer, reader) for _ in range(5)]
    assert median(delays) < 0.25, delays


async def test_a_process_that_is_alone_sends_few_notices(settings: Settings) -> None:
    """Each would cost the server a small query, and be heard by no other process."""
    heard: list[str] = []
    listener = await connect_raw(settings.database_url)
    try:
        await listener.add_listener("ringback", lambda *_: heard.append("notice"))
        async with replica(settings) as writer:
            for _ in range(8):
                await writer.write()
                await asyncio.sleep(0.05)
            alone = len(heard)
            async with replica(settings):
                for _ in range(8):
                    await writer.write()
                    await asyncio.sleep(0.05)
    finally:
        await listener.close()
    assert alone <= 2
    assert len(heard) >= alone + 6


async def _delay(writer: Replica, reader: Replica) -> float:
    """Write an event; return the seconds until the other process has read it."""
    clock = asyncio.get_running_loop().time
    began = clock()
    key = await writer.write()
    await until(lambda: reader.feed.newest == key)
    return clock() - began


async def test_an_event_whose_notice_was_lost_is_read_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica(settings) as writer, replica(settings) as reader:
        assert writer.database.shared is not None
        monkeypatch.setattr(writer.database.shared.notices, "send", lambda: None)
        key = await writer.write()
        await until(lambda: reader.feed.newest == key)


async def test_a_position_from_another_process_that_is_ahead_is_accepted(settings: Settings) -> None:
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
        read, _ = await reader.streams.read_after(ALL, 0, len(keys) + 1)
        assert [event["sequence"] for event in read] == keys


@pytest.fixture(params=["a little behind", "far behind"])
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many events are unread: few, which are published, or more than one page."""
    if request.param == "far behind":
        monkeypatch.setattr("receiver.events.postgresql_log._PAGE", 1)


async def test_nothing_is_read_without_a_client(settings: Settings) -> None:
    async with replica(settings, followed=False) as writer, replica(settings, followed=False) as reader:
        key = await writer.write()
        await until(lambda: reader.is_behind)
        await reader.streams.read_before(ALL, None, 1)  # enough time to begin to read
        assert reader.is_behind
        assert reader.feed.newest < key


@pytest.mark.usefixtures("behind")
async def test_a_follower_that_comes_later_reads_every_event_after_its_position(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings, followed=False) as reader:
        keys = [await writer.write() for _ in range(4)]
        await until(lambda: reader.is_behind)
        position = await reader.streams.check(1, keys[1])
        keys.append(await writer.write())
        with reader.streams.follow(ALL, position) as follower:
            keys.append(await writer.write())
            assert await read_to(keys[-1], follower) == keys[2:]


@pytest.mark.usefixtures("behind")
async def test_a_follower_from_now_on_reads_no_event_that_was_left_unread(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings, followed=False) as reader:
        await writer.write()
        before = await writer.write()
        await until(lambda: reader.is_behind)
        now = await reader.streams.now()
        assert now == before
        with reader.streams.follow(ALL, now) as follower:
            after = await writer.write()
            assert await read_to(after, follower) == [after]


@pytest.mark.usefixtures("behind")
async def test_events_that_were_left_unread_are_on_the_next_page(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings, followed=False) as reader:
        keys = [await writer.write() for _ in range(3)]
        await until(lambda: reader.is_behind)
        found, _ = await reader.streams.read_after(ALL, keys[0], 10)
        assert [event["sequence"] for event in found] == keys[1:]


@pytest.mark.usefixtures("behind")
async def test_an_event_that_commits_late_is_not_skipped_by_the_first_follower(settings: Settings) -> None:
    async with replica(settings) as slow, replica(settings) as quick, replica(settings, followed=False) as reader:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        second = await quick.write()
        await until(lambda: reader.is_behind)
        with reader.streams.follow(ALL, reader.feed.newest) as follower:
            await until(lambda: not reader.is_behind)
            assert reader.feed.newest < second
            gate.opened.set()
            assert await read_to(second, follower) == [await late, second]


@pytest.mark.usefixtures("behind")
async def test_the_first_long_poll_is_woken_by_another_processs_commit(settings: Settings) -> None:
    async with replica(settings) as writer, replica(settings, followed=False) as reader:
        await writer.write()
        await until(lambda: reader.is_behind)
        uid = new_id()
        with reader.waiting.watch(uid) as watch:
            await writer.write(run_uid=uid)
            assert await watch.changed(0.5)  # and not only at the next read, a second later


async def test_a_long_poll_is_woken_while_an_earlier_number_is_missing(settings: Settings) -> None:
    async with replica(settings) as slow, replica(settings) as quick, replica(settings, followed=False) as reader:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        uid = new_id()
        with reader.waiting.watch(uid) as watch:
            await quick.write(run_uid=uid)
            assert await watch.changed(10)
        assert not late.done()
        gate.opened.set()
        await late


async def test_a_transaction_that_hangs_delays_the_feed_but_not_the_client_that_asks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.events.postgresql_log._READ_SECONDS", 0.05)
    async with replica(settings) as slow, replica(settings) as quick, replica(settings, followed=False) as reader:
        gate = Gate()
        late = asyncio.create_task(slow.write(hold=gate))
        await gate.reached.wait()
        second = await quick.write()
        await until(lambda: reader.is_behind)
        assert await reader.streams.now() < second
        assert reader.is_behind
        gate.opened.set()
        first = await late
        async with asyncio.timeout(10):
            while await reader.streams.now() < second:
                pass
        found, _ = await reader.streams.read_after(ALL, first - 1, 10)
        assert [event["sequence"] for event in found] == [first, second]
