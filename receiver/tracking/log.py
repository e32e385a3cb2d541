"""The log of events on a PostgreSQL that several processes write to: handed to the feed in an order that holds.

A sequence number is given when an event is written, and seen when its transaction commits: the greater number may be
seen first. So a number that is missing is waited for while any transaction is open that had begun to write events
when the gap was seen; what is missing after that was rolled back. Such transactions are known by their lock on the
table, which they take before they are given a number and keep until their end.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from receiver.errors import StorageUnavailable
from receiver.storage.database import Database
from receiver.storage.events import event_writers, events_after
from receiver.storage.postgresql import Notices
from receiver.storage.transaction import NewEvent
from receiver.telemetry import get_logger
from receiver.tracking.announce import Waiting
from receiver.tracking.feed import Feed

log = get_logger("tracking.log")

_LOOK_SECONDS = 1.0
"""A notice may be lost: the table is read this often without one."""
_PAGE = 500
_GAP_SECONDS = 0.005


class Log:
    """Feeds this process with what every process commits, and wakes those here who wait for a task."""

    def __init__(self, database: Database, notices: Notices, feed: Feed, waiting: Waiting) -> None:
        self._database = database
        self._notices = notices
        self._feed = feed
        self._waiting = waiting
        self._turn = asyncio.Lock()

    def publish(self, events: Sequence[tuple[int, NewEvent]]) -> None:
        """Take events that this process committed; tell the others."""
        self._notices.send()
        first, last = events[0][0], events[-1][0]
        if first == self._feed.newest + 1 and last - first == len(events) - 1:
            self._feed.publish(events)
        else:
            self._notices.heard.set()

    async def run(self) -> None:
        """Read on for ever, whenever there is news."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._notices.heard.wait()
            except TimeoutError:
                pass
            self._notices.heard.clear()
            try:
                await self.catch_up()
            except StorageUnavailable as error:
                log.warning("the log cannot be read now", error=error.message)
                await asyncio.sleep(_LOOK_SECONDS)

    async def catch_up(self) -> None:
        """Hand on every event that is committed by now. Raises `StorageUnavailable`."""
        async with self._turn:
            while rows := await self._database.read(events_after(self._feed.newest, _PAGE)):
                await self._hand_on(rows)
                if len(rows) < _PAGE:
                    return

    async def wait_for_writers(self) -> None:
        """Wait until every transaction has ended that is writing events now. Raises `StorageUnavailable`."""
        writers = await self._writers()
        while writers:  # nobody tells when one ends
            await asyncio.sleep(_GAP_SECONDS)
            writers &= await self._writers()

    async def _hand_on(self, rows: Sequence[Mapping[str, Any]]) -> None:
        last = rows[-1]["sequence"]
        self._publish(_without_gap(rows, self._feed.newest))
        if self._feed.newest < last:
            await self.wait_for_writers()
            found = await self._database.read(events_after(self._feed.newest, _PAGE))
            # What came after `last` may have gaps of its own.
            self._publish([row for row in found if row["sequence"] <= last])

    def _publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        # This process may have published what it committed while these were read.
        news = [(row["sequence"], _event(row)) for row in rows if row["sequence"] > self._feed.newest]
        if news:
            self._feed.publish(news)
        for _, event in news:
            for uid in (event.task_uid, event.run_uid):
                if uid is not None:
                    self._waiting.wake(uid)

    async def _writers(self) -> set[str]:
        return {row["writer"] for row in await self._database.read(event_writers())}


def _without_gap(rows: Sequence[Mapping[str, Any]], after: int) -> list[Mapping[str, Any]]:
    """Return the rows that follow `after`, one by one, up to the first number that is missing."""
    return [row for place, row in enumerate(rows, after + 1) if row["sequence"] == place]


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
