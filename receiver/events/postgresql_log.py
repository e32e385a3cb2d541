"""The log of events on a PostgreSQL database that several processes write to: publishes to the feed, without gaps.

Why gaps need care. PostgreSQL assigns a sequence number when an event is inserted, but shows the event when its
transaction commits, and a transaction with a greater number may commit first. A reader that trusts `sequence > last`
would then move past the smaller number and never show that event. So when a number is missing, the reader finds out
which of Ringback's transactions were writing events at that moment and waits until all of them have ended
(`receiver.storage.open_writers`). A number that is still missing was rolled back and never comes. Transactions that
began later are not waited for: their numbers are greater than the gap. One that hangs delays the feed of every process
until PostgreSQL ends it, which is the price of never skipping an event. It does not delay a start for longer than
`_BEGIN_SECONDS`: the feed then begins later, and until then a client that asks for events gets a 503.

While no client of this process follows a stream or waits in a long poll, nothing is read: with many writers that would
be a query for every few commits of any process. The notices stay unread until a client comes.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from receiver.errors import StorageUnavailable
from receiver.events.after_commit import Waiting
from receiver.events.feed import Feed
from receiver.storage.database import Database
from receiver.storage.events import events_after, newest_event
from receiver.storage.open_writers import EVENTS, OpenWriters
from receiver.storage.transaction import NewEvent
from receiver.telemetry.log import get_logger

if TYPE_CHECKING:
    from receiver.storage.postgresql import Notices

log = get_logger("events.postgresql_log")

_READ_SECONDS = 1.0
"""The table is read this often even without a notice, because a notice may be lost."""
_BATCH_SECONDS = 0.02
"""Commits that follow each other within this time are read together."""
_PAGE = 500
_BEGIN_SECONDS = 1.0
"""How long a start waits for transactions that are writing events."""


class PostgreSQLLog:
    """Publishes what every process commits to this process's feed, and wakes the long polls of this process."""

    def __init__(self, database: Database, notices: "Notices", feed: Feed, waiting: Waiting) -> None:
        self._database = database
        self._notices = notices
        self._feed = feed
        self._waiting = waiting
        self._reading = asyncio.Lock()
        self._read_at = 0.0
        self._has_begun = False

    def publish(self, events: Sequence[tuple[int, NewEvent]]) -> None:
        """Take events that this process has committed, and notify the other processes."""
        self._notices.send()
        first, last = events[0][0], events[-1][0]
        if self._has_begun and first == self._feed.newest + 1 and last - first == len(events) - 1:
            self._feed.publish(events)
        else:
            self._notices.received.set()

    async def run(self) -> None:
        """Read new events until cancelled, whenever there are some and a client waits for them."""
        while True:
            if self._has_begun:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_READ_SECONDS):
                        await self._notices.received.wait()
                await self._wait_for_client()
            try:
                await self.catch_up()
            except StorageUnavailable as error:
                log.warning("reading events failed", error_code=error.code, error=str(error))
                await asyncio.sleep(_READ_SECONDS)
            await asyncio.sleep(_BATCH_SECONDS)

    async def begin(self) -> None:
        """Begin the feed after the newest event on disk, or leave that to `run` if it takes long.

        Raises `StorageUnavailable`.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_BEGIN_SECONDS), self._reading:
                await self._begin()
        if not self._has_begun:
            log.warning("event feed begins later", seconds=_BEGIN_SECONDS)

    async def refresh(self) -> None:
        """Publish events that were left unread, as far as that can be done soon.

        Raises `StorageUnavailable`, also if the feed has not begun yet.
        """
        is_old = asyncio.get_running_loop().time() > self._read_at + _READ_SECONDS
        if self._has_begun and not self._notices.received.is_set() and not is_old:
            return
        try:
            async with asyncio.timeout(_READ_SECONDS):
                await self.catch_up()
        except TimeoutError:  # a transaction that hangs delays the feed, but not the client that asks
            log.info("event feed is behind", seconds=_READ_SECONDS)
            if not self._has_begun:
                message = "another process is still writing events from before this one started; try again"
                raise StorageUnavailable(message) from None

    async def catch_up(self) -> None:
        """Publish every event that is committed by now. Raises `StorageUnavailable`."""
        async with self._reading:
            self._notices.received.clear()
            try:
                await (self._read_new() if self._has_begun else self._begin())
            except BaseException:
                self._notices.received.set()  # what was not published is still unread
                raise

    async def _wait_for_client(self) -> None:
        """Return as soon as a client follows a stream or waits in a long poll."""
        clients = (self._feed.followed, self._waiting.watched)
        if any(event.is_set() for event in clients):
            return
        waits = [asyncio.create_task(event.wait()) for event in clients]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _begin(self) -> None:
        newest = (await self._database.read(newest_event()))[0]["newest"] or 0
        await self._wait_for_writers()  # events before the newest one may not be committed yet
        self._has_begun = True
        if newest > self._feed.newest:
            self._feed.begin(newest)
        self._waiting.wake_all()

    async def _read_new(self) -> None:
        began = asyncio.get_running_loop().time()
        rows = await self._database.read(events_after(self._feed.newest, _PAGE))
        if len(rows) == _PAGE:  # too far behind: followers read what they need from the database
            await self._begin()
        elif rows:
            await self._publish_in_order(rows)
        self._read_at = began

    async def _publish_in_order(self, rows: Sequence[Mapping[str, Any]]) -> None:
        last = rows[-1]["sequence"]
        self._wake(rows)
        self._publish(_before_gap(self._unpublished(rows), self._feed.newest))
        if self._feed.newest < last:
            await self._wait_for_writers()
            found = await self._database.read(events_after(self._feed.newest, _PAGE))
            # Events after `last` may have gaps that were not waited for.
            rest = [row for row in found if row["sequence"] <= last]
            self._wake(rest)
            self._publish(self._unpublished(rest))

    def _wake(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Wake the long polls of these tasks and runs. Gaps do not matter: a long poll reads the row, not events."""
        for row in rows:
            for uid in (row["task_uid"], row["run_uid"]):
                if uid is not None:
                    self._waiting.wake(uid)

    def _unpublished(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the rows that `publish` has not published while these were read."""
        return [row for row in rows if row["sequence"] > self._feed.newest]

    def _publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._feed.publish([(row["sequence"], _event(row)) for row in rows])

    async def _wait_for_writers(self) -> None:
        """Wait until every transaction that is writing events now has ended. Raises `StorageUnavailable`."""
        await (await OpenWriters.of(self._database, EVENTS)).ended()


def _before_gap(rows: Sequence[Mapping[str, Any]], after: int) -> list[Mapping[str, Any]]:
    """Return the rows that follow `after` with no number missing, up to the first gap."""
    return [row for sequence, row in enumerate(rows, after + 1) if row["sequence"] == sequence]


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
