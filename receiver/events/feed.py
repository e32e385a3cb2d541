"""The feed of committed events: the newest ones in memory, and a bell for those who follow.

It takes events in the order in which they can be read, and nobody reads past `newest`. On SQLite that is the order in
which this process commits them: there is one writer, and sequence numbers are given under its lock. On PostgreSQL
sequence order is not commit order: there `tracking.log` stands before the feed.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from receiver.storage.transaction import NewEvent

MOST_EVENTS = 1024
MOST_FRAME_BYTES = 8 * 1024 * 1024
"""What is kept in memory; who is further behind reads from the database."""

Topic = int | str
"""What a follower wants to be woken for: anything of an organization, or of one task by its outer id."""


class Entry:
    """An event in memory: what filters ask of it, and how the stream shows it once somebody had to see it."""

    __slots__ = ("frame", "model", "organization_id", "run_uid", "sequence", "task_type", "task_uid", "type")

    def __init__(self, sequence: int, event: NewEvent) -> None:
        # Not the event itself: its snapshot may be as large as a body.
        self.sequence = sequence
        self.organization_id = event.organization_id
        self.type = event.type
        self.task_uid = event.task_uid
        self.model = event.model
        self.task_type = event.task_type
        self.run_uid = event.run_uid
        self.frame: bytes | None = None


class StreamCursor:
    """Where one follower is. Everything up to `position` was read by it, or was nothing for it."""

    __slots__ = ("_feed", "_left", "_position", "_waiter", "caught_up", "topic")

    def __init__(self, feed: "Feed", topic: Topic, after: int) -> None:
        self.topic = topic
        self.caught_up = False
        self._feed = feed
        self._position = after
        self._left = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def position(self) -> int:
        """The sequence number to resume after."""
        return self._feed.newest if self.caught_up else self._position

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to come: the follower left, or the service stops."""
        return self._left or self._feed.closed

    def move(self, position: int) -> None:
        """Note that everything up to `position` was read."""
        self._position = position
        self.caught_up = position >= self._feed.newest

    def ring(self, position: int) -> None:
        """There is news after `position`, and nothing for this follower between its own position and that one."""
        if self.caught_up:
            self._position = position
            self.caught_up = False
        self.wake()

    def wake(self) -> None:
        """End the wait, if there is one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """Follow no more."""
        self._left = True
        self.wake()

    async def news(self, seconds: float) -> bool:
        """Wait until there is something to read or the end is near, `seconds` at most; say whether it is so."""
        if self.caught_up and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._waiter}, timeout=seconds)
            self._waiter = None
        return not self.caught_up or self.closed


class Feed:
    """Holds every event with a sequence number after `oldest` and up to `newest`, and wakes who follows."""

    def __init__(self) -> None:
        self.newest = 0
        self.oldest = 0
        self.closed = False
        self.followed = asyncio.Event()
        """Set while anybody follows."""
        self._bytes = 0
        self._ring: deque[Entry] = deque()
        self._cursors: dict[Topic, set[StreamCursor]] = defaultdict(set)

    def begin(self, newest: int) -> None:
        """Begin after this event, at the start or anew: what is before it is read from the database."""
        before, self.newest = self.newest, newest
        self._skip(before, newest + 1)

    def publish(self, events: Sequence[tuple[int, NewEvent]]) -> None:
        """Take events with their sequence numbers, after their commit."""
        before, first = self.newest, events[0][0]
        self.newest = events[-1][0]
        if first != before + 1:
            self._skip(before, first)
        self._ring.extend(Entry(sequence, event) for sequence, event in events)
        self._trim()
        topics: set[Topic] = {event.organization_id for _, event in events}
        topics.update(event.task_uid for _, event in events if event.task_uid is not None)
        for topic in topics:
            _ring(self._cursors.get(topic, ()), first - 1)

    def since(self, position: int) -> list[Entry] | None:
        """Return every event after `position`, oldest first; None if not all of them are here."""
        if position < self.oldest:
            return None
        found = []
        for entry in reversed(self._ring):
            if entry.sequence <= position:
                break
            found.append(entry)
        found.reverse()
        return found

    def keep(self, entry: Entry, frame: bytes) -> None:
        """Keep how an event is shown, so that it is made once for all who follow."""
        entry.frame = frame
        if entry.sequence > self.oldest:
            self._bytes += len(frame)
            self._trim()

    def follow(self, cursor: StreamCursor) -> None:
        """Ring for this one from now on."""
        self._cursors[cursor.topic].add(cursor)
        self.followed.set()

    def unfollow(self, cursor: StreamCursor) -> None:
        """Ring for it no more."""
        cursors = self._cursors[cursor.topic]
        cursors.discard(cursor)
        if not cursors:
            del self._cursors[cursor.topic]
        if not self._cursors:
            self.followed.clear()

    def close(self) -> None:
        """The service stops: wake all, so that they end."""
        self.closed = True
        for cursors in self._cursors.values():
            for cursor in cursors:
                cursor.wake()

    def _skip(self, before: int, first: int) -> None:
        """Numbers are missing: somebody wrote what was not published, so all must read it from the database."""
        self._ring.clear()
        self._bytes = 0
        self.oldest = first - 1
        for cursors in self._cursors.values():
            _ring(cursors, before)

    def _trim(self) -> None:
        while len(self._ring) > MOST_EVENTS or self._bytes > MOST_FRAME_BYTES:
            gone = self._ring.popleft()
            self._bytes -= len(gone.frame or b"")
            self.oldest = gone.sequence


def _ring(cursors: Iterable[StreamCursor], position: int) -> None:
    for cursor in cursors:
        cursor.ring(position)
