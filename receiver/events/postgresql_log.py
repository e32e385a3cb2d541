"""The log of events on a PostgreSQL that several processes write to: handed to the feed in an order that holds.

A sequence number is given when an event is written, and seen when its transaction commits: the greater number may be
seen first. So a number that is missing is waited for while any transaction is open that had begun to write events
when the gap was seen; what is missing after that was rolled back. Such transactions are known by their lock on the
table, which they take before they are given a number and keep until their end.

While nobody here follows or waits, nothing is read: with many writers that would be a query for every few commits of
anybody. The notices are left unread until somebody comes.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from receiver.errors import StorageUnavailable
from receiver.events.after_commit import Waiting
from receiver.events.feed import Feed
from receiver.storage.database import Database
from receiver.storage.events import event_writers, events_after, newest_event
from receiver.storage.transaction import NewEvent
from receiver.telemetry import get_logger

if TYPE_CHECKING:
    from receiver.storage.postgresql import Notices

log = get_logger("events.postgresql_log")

_LOOK_SECONDS = 1.0
"""A notice may be lost: the table is read this often without one."""
_TOGETHER_SECONDS = 0.02
"""News that comes so close to each other is read together."""
_PAGE = 500
_GAP_SECONDS = 0.005


class PostgreSQLLog:
    """Feeds this process with what every process commits, and wakes those here who wait for a task."""

    def __init__(self, database: Database, notices: "Notices", feed: Feed, waiting: Waiting) -> None:
        self._database = database
        self._notices = notices
        self._feed = feed
        self._waiting = waiting
        self._turn = asyncio.Lock()
        self._read_at = 0.0

    def publish(self, events: Sequence[tuple[int, NewEvent]]) -> None:
        """Take events that this process committed; tell the others."""
        self._notices.send()
        first, last = events[0][0], events[-1][0]
        if first == self._feed.newest + 1 and last - first == len(events) - 1:
            self._feed.publish(events)
        else:
            self._notices.heard.set()

    async def run(self) -> None:
        """Read on for ever, whenever there is news and somebody to tell it to."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._notices.heard.wait()
            except TimeoutError:
                pass
            await self._somebody()
            try:
                await self.catch_up()
            except StorageUnavailable as error:
                log.warning("the log cannot be read now", error=error.message)
                await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.sleep(_TOGETHER_SECONDS)

    async def begin(self) -> None:
        """Begin after what is on disk. Raises `StorageUnavailable`."""
        async with self._turn:
            await self._begin()

    async def refresh(self) -> None:
        """Catch up with news that was left unread, as far as can be done soon. Raises `StorageUnavailable`."""
        is_old = asyncio.get_running_loop().time() > self._read_at + _LOOK_SECONDS
        if not self._notices.heard.is_set() and not is_old:
            return
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self.catch_up()
        except TimeoutError:  # a transaction that hangs holds up the feed, and not who asks
            log.info("the log is behind")

    async def catch_up(self) -> None:
        """Hand on every event that is committed by now. Raises `StorageUnavailable`."""
        async with self._turn:
            self._notices.heard.clear()
            try:
                await self._read_on()
            except BaseException:
                self._notices.heard.set()  # what was not handed on is still news
                raise

    async def _somebody(self) -> None:
        """Return when anybody follows or waits."""
        anybody = (self._feed.followed, self._waiting.watched)
        if any(event.is_set() for event in anybody):
            return
        coming = [asyncio.create_task(event.wait()) for event in anybody]
        try:
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in coming:
                each.cancel()

    async def _begin(self) -> None:
        newest = (await self._database.read(newest_event()))[0]["newest"] or 0
        await self._wait_for_writers()  # what is older may be committed yet
        if newest > self._feed.newest:
            self._feed.begin(newest)
        self._waiting.wake_all()

    async def _read_on(self) -> None:
        began = asyncio.get_running_loop().time()
        rows = await self._database.read(events_after(self._feed.newest, _PAGE))
        if len(rows) == _PAGE:  # far behind: who follows reads of it what he wants, and nobody all of it
            await self._begin()
        elif rows:
            await self._hand_on(rows)
        self._read_at = began

    async def _hand_on(self, rows: Sequence[Mapping[str, Any]]) -> None:
        last = rows[-1]["sequence"]
        self._wake(rows)
        self._publish(_without_gap(self._new(rows), self._feed.newest))
        if self._feed.newest < last:
            await self._wait_for_writers()
            found = await self._database.read(events_after(self._feed.newest, _PAGE))
            # What came after `last` may have gaps of its own.
            rest = [row for row in found if row["sequence"] <= last]
            self._wake(rest)
            self._publish(self._new(rest))

    def _wake(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Wake who waits for a task of these: in whatever order, for he reads its row and no event."""
        for row in rows:
            for uid in (row["task_uid"], row["run_uid"]):
                if uid is not None:
                    self._waiting.wake(uid)

    def _new(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return what this process did not publish while these were read."""
        return [row for row in rows if row["sequence"] > self._feed.newest]

    def _publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._feed.publish([(row["sequence"], _event(row)) for row in rows])

    async def _wait_for_writers(self) -> None:
        """Wait until every transaction has ended that is writing events now. Raises `StorageUnavailable`."""
        writers = await self._writers()
        while writers:  # nobody tells when one ends
            await asyncio.sleep(_GAP_SECONDS)
            writers &= await self._writers()

    async def _writers(self) -> set[str]:
        return {row["writer"] for row in await self._database.read(event_writers())}


def _without_gap(rows: Sequence[Mapping[str, Any]], after: int) -> list[Mapping[str, Any]]:
    """Return the rows that follow `after`, one by one, up to the first number that is missing."""
    return [row for cursor, row in enumerate(rows, after + 1) if row["sequence"] == cursor]


def _event(row: Mapping[str, Any]) -> NewEvent:
    return NewEvent(
        uid=row["uid"],
        organization_id=row["organization_id"],
        task_id=None,
        task_uid=row["task_uid"],
        type=row["type"],
        snapshot={},
        created_at=row["created_at"],
        model=row["model"],
        task_type=row["task_type"],
        run_uid=row["run_uid"],
    )
