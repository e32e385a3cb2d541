"""Streams: each event once and in order, read from memory where the feed has it and else from the database."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from receiver.domain.representations import brief_event, native_event
from receiver.domain.server_sent import event_frame
from receiver.errors import EventsLost
from receiver.events.feed import Entry, Feed, StreamCursor
from receiver.events.postgresql_log import PostgreSQLLog
from receiver.storage.database import Database, Query
from receiver.storage.events import (
    EventFilter,
    event_and_task,
    event_beyond,
    events_before,
    events_between,
    events_by_sequence,
    first_event_after,
    kept_events,
    large_events,
    newest_event,
)
from receiver.storage.large_rows import MOST_PAGE_BYTES, Hold, read_first, without_room
from receiver.telemetry.told import TOLD_TIMES

MOST_AT_ONCE = 32
"""Events that one follower reads at a time: what it may hold in memory while its client reads slowly."""
_RENDERED_AT_ONCE = 8
"""Events that one query reads for their frames: each may be as large as a body."""
Events = tuple[list[dict[str, Any]], bool]
"""Events as the API shows them, and whether more would follow that did not fit a page."""
_BACKLOG_BYTES = 512 * 1024
"""Of events that one follower reads from the database at a time, as JSON: its client may read them slowly."""
_SPAN = 5_000
"""Sequence numbers that one query of a follower covers: a filter that lets little through may not take long."""


class Follower(StreamCursor):
    """Reads the events that its filter lets through, after a position."""

    __slots__ = ("_read", "_streams", "_wanted")

    def __init__(self, streams: "Streams", wanted: EventFilter, after: int) -> None:
        super().__init__(streams.feed, wanted.task_uid or wanted.organization_id, after)
        self._streams = streams
        self._wanted = wanted
        self._read: Sequence[Entry] = ()

    def __enter__(self) -> Self:
        self._feed.follow(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.unfollow(self)

    async def read(self, hold: Hold = without_room) -> list[bytes]:
        """Return the next frames of the stream, oldest first, and move on. Raises `RingbackError`.

        None if there are none yet (`caught_up`), or if the filter hides all that one query covers: the caller reads on.
        `hold` takes the room in which frames are made of large events from the database.
        """
        if self.caught_up:
            return []
        entries = self._feed.since(self._position)
        return await (self._from_database(hold) if entries is None else self._from_memory(entries))

    def told(self) -> None:
        """Note that the client has been sent what was read last."""
        for entry in self._read:
            TOLD_TIMES.told(entry.uid, "stream")
        self._read = ()

    async def _from_memory(self, entries: Sequence[Entry]) -> list[bytes]:
        newest = self._feed.newest
        wanted = [entry for entry in entries if self._wanted.admits(entry)]
        frames, taken = await self._streams.frames(wanted[:MOST_AT_ONCE])
        self._read = wanted[:taken]
        self.move(wanted[taken - 1].sequence if taken < len(wanted) else newest)
        return frames

    async def _from_database(self, hold: Hold) -> list[bytes]:
        until = min(self._position + _SPAN, self._feed.newest)
        rows, is_cut = await self._streams.read_between(
            self._wanted, self._position, until, MOST_AT_ONCE, hold, most=_BACKLOG_BYTES
        )
        if not rows:
            until = await self._streams.before_next(until)
        self.move(rows[-1]["sequence"] if is_cut or len(rows) == MOST_AT_ONCE else until)
        return [event_frame(str(row["sequence"]), row["type"], row) for row in rows]


class Streams:
    """The events as the API reads them: in pages, and as they happen.

    `log` publishes to the feed where several processes write to one database (PostgreSQL).
    """

    def __init__(self, database: Database, feed: Feed, log: PostgreSQLLog | None = None) -> None:
        self.feed = feed
        self._database = database
        self._log = log
        self._rendering = asyncio.Lock()

    async def begin(self) -> None:
        """Begin the feed after the newest event on disk. Call it once, before anything is published."""
        if self._log is not None:
            await self._log.begin()
        else:
            self.feed.begin((await self._database.read(newest_event()))[0]["newest"] or 0)

    async def now(self) -> int:
        """Return the position after which only new events come. Raises `StorageUnavailable`."""
        if self._log is not None:
            await self._log.refresh()
        return self.feed.newest

    def follow(self, wanted: EventFilter, after: int) -> Follower:
        """Return a context manager that follows the events after a position that `check` has accepted."""
        return Follower(self, wanted, after)

    async def check(self, organization_id: int, after: int | None) -> int:
        """Return the position `after` if nothing after it was purged; None stands for an unreadable position.

        Raises `EventsLost`, which names the organization's oldest event that is still stored.
        """
        newest = await self.now()
        if self._log is not None and after is not None and after > newest:
            await self._log.catch_up()  # the position may come from another process, which is ahead of this one
            newest = self.feed.newest
        kept = (await self._database.read(kept_events(organization_id)))[0]
        if after is None:
            raise EventsLost("the position is not the number of an event", oldest=kept["oldest"])
        if after > newest:
            raise EventsLost(f"event {after} never existed", oldest=kept["oldest"])
        if after < (kept["purged"] or 0):
            raise EventsLost(f"events after event {after} were purged", oldest=kept["oldest"])
        return after

    async def before_next(self, position: int) -> int:
        """Return the position right before the next event after this one, as far as events may be read.

        Numbers may have wide gaps: they go up far when the database was restored from a backup.
        """
        first = (await self._database.read(first_event_after(position)))[0]["first"]
        return max(position, self.feed.newest if first is None else min(first - 1, self.feed.newest))

    async def read_before(
        self,
        wanted: EventFilter,
        before: int | None,
        limit: int,
        hold: Hold = without_room,
        *,
        since: int | None = None,
        brief: bool = False,
    ) -> Events:
        """Return events as the API shows them, newest first, as many as fit a page, and whether that cuts them.

        `since` is the position of the oldest event that is looked at; `brief` leaves out what may be large.
        """
        return await self._read(events_before(wanted, before, limit, since), hold, brief=brief)

    async def beyond(self, organization_id: int, before: int | None, most: int) -> tuple[int, datetime] | None:
        """Return the position and the time of the event before a position that follows on `most` others, if any."""
        rows = await self._database.read(event_beyond(organization_id, before, most))
        return (rows[0]["id"], rows[0]["created_at"]) if rows else None

    async def read_after(
        self, wanted: EventFilter, after: int, limit: int, hold: Hold = without_room, *, brief: bool = False
    ) -> Events:
        """Return events after a position as the API shows them, oldest first, and whether they are cut."""
        return await self._read(events_between(wanted, after, await self.now(), limit), hold, brief=brief)

    async def read_between(
        self,
        wanted: EventFilter,
        after: int,
        until: int,
        limit: int,
        hold: Hold = without_room,
        *,
        most: int = MOST_PAGE_BYTES,
    ) -> Events:
        """Return events after one position and up to another, oldest first, and whether `most` bytes cut them."""
        return await self._read(events_between(wanted, after, until, limit), hold, most)

    async def _read(self, query: Query, hold: Hold, most: int = MOST_PAGE_BYTES, *, brief: bool = False) -> Events:
        wanted = large_events(query, brief=brief)
        rows, rest = await read_first(self._database.read, wanted, hold, most=most)
        return [_api_event(row, brief=brief) for row in rows], bool(rest)

    async def frames(self, entries: Sequence[Entry]) -> tuple[list[bytes], int]:
        """Return the frames of the first of these events, and of how many: until they have `MOST_PAGE_BYTES`.

        The first follower that needs a frame renders it for all.
        """
        frames: list[bytes] = []
        size = 0
        for number, entry in enumerate(entries):
            if size >= MOST_PAGE_BYTES:
                return frames, number
            if entry.frame is None:
                async with self._rendering:
                    few = entries[number : number + _RENDERED_AT_ONCE]
                    await self._render([each for each in few if each.frame is None])
            if entry.frame:
                frames.append(entry.frame)
                size += len(entry.frame)
        return frames, len(entries)

    async def _render(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        rows = await self._database.read(events_by_sequence([entry.sequence for entry in entries]))
        by_sequence = {row["event_id"]: _api_event(row) for row in rows}
        for entry in entries:
            event = by_sequence.get(entry.sequence)  # None if it was purged: it is left out of the stream
            frame = b"" if event is None else event_frame(str(entry.sequence), entry.type, event)
            self.feed.keep(entry, frame)


def _api_event(row: dict[str, Any], *, brief: bool = False) -> dict[str, Any]:
    event, task = event_and_task(row)
    return brief_event(task, event) if brief else native_event(task, event)
