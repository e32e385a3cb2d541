"""The feed: the newest committed events in memory, and the followers that are woken when there are more.

Events are published to it in the order in which they can be read, and no follower reads past `newest`. On SQLite that
is the order in which this process commits them: there is one writer, and it assigns sequence numbers under its lock.
On PostgreSQL the order of sequence numbers is not the order of commits: there `receiver.events.postgresql_log`
publishes to the feed.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from receiver.events.wakeable import TimeOuts, Wakeable
from receiver.storage.transaction import NewEvent

MOST_EVENTS = 1024
MOST_FRAME_BYTES = 8 * 1024 * 1024
"""What is kept in memory. A follower that is further behind reads from the database."""

Topic = int | str
"""What a follower is woken for: events of an organization (its key), or of one task (its outer id)."""


class Entry:
    """An event in memory: the columns that filters read, and its frame of the stream once that was rendered."""

    __slots__ = ("frame", "model", "organization_id", "run_uid", "sequence", "task_type", "task_uid", "type", "uid")

    def __init__(self, sequence: int, event: NewEvent) -> None:
        # Not the event itself: its snapshot may be as large as a body.
        self.sequence = sequence
        self.uid = event.uid
        self.organization_id = event.organization_id
        self.type = event.type
        self.task_uid = event.task_uid
        self.model = event.model
        self.task_type = event.task_type
        self.run_uid = event.run_uid
        self.frame: bytes | None = None


class StreamCursor(Wakeable):
    """The position of one follower: it has read, or does not want, every event up to `position`."""

    __slots__ = ("_feed", "_left", "_position", "caught_up", "topic")

    def __init__(self, feed: "Feed", topic: Topic, after: int) -> None:
        super().__init__()
        self.topic = topic
        self.caught_up = False
        self._feed = feed
        self._position = after
        self._left = False

    @property
    def position(self) -> int:
        """The sequence number to resume after."""
        return self._feed.newest if self.caught_up else self._position

    @property
    def closed(self) -> bool:
        """Whether no more events will come: the follower left, or the service stops."""
        return self._left or self._feed.closed

    def move(self, position: int) -> None:
        """Note that every event up to `position` was read."""
        self._position = position
        self.caught_up = position >= self._feed.newest

    def wake_after(self, position: int) -> None:
        """Wake the follower for events after `position`.

        A follower that is caught up resumes there: it wants none of the events between its own position and this one.
        """
        if self.caught_up:
            self._position = position
            self.caught_up = False
        self.wake()

    def leave(self) -> None:
        """Stop following."""
        self._left = True
        self.wake()

    async def wait(self, seconds: float) -> bool:
        """Wait until there are events to read or no more will come, `seconds` at most; return whether that is so."""
        if self.caught_up and not self.closed:
            await self.woken(self._feed.time_outs, seconds)
        return not self.caught_up or self.closed


class Feed:
    """Holds every event with a sequence number after `oldest` and up to `newest`, and wakes its followers."""

    def __init__(self) -> None:
        self.newest = 0
        self.oldest = 0
        self.closed = False
        self.followed = asyncio.Event()
        """Set while there is at least one follower."""
        self.time_outs = TimeOuts()
        """What ends the waits of followers that nothing wakes."""
        self._bytes = 0
        self._buffer: deque[Entry] = deque()
        self._cursors: dict[Topic, set[StreamCursor]] = defaultdict(set)

    def begin(self, newest: int) -> None:
        """Begin, or begin again, after the event `newest`: earlier events are read from the database."""
        before, self.newest = self.newest, newest
        self._skip(before, newest + 1)

    def publish(self, events: Sequence[tuple[int, NewEvent]]) -> None:
        """Append events with their sequence numbers, after their commit, and wake the followers that want them."""
        before, first = self.newest, events[0][0]
        self.newest = events[-1][0]
        if first != before + 1:
            self._skip(before, first)
        self._buffer.extend(Entry(sequence, event) for sequence, event in events)
        self._trim()
        topics: set[Topic] = {event.organization_id for _, event in events}
        topics.update(event.task_uid for _, event in events if event.task_uid is not None)
        for topic in topics:
            _wake_after(first - 1, self._cursors.get(topic, ()))

    def since(self, position: int) -> list[Entry] | None:
        """Return every event after `position`, oldest first; None if some of them are no longer in memory."""
        if position < self.oldest:
            return None
        found = []
        for entry in reversed(self._buffer):
            if entry.sequence <= position:
                break
            found.append(entry)
        found.reverse()
        return found

    def keep(self, entry: Entry, frame: bytes) -> None:
        """Keep the frame of an event, so that it is rendered once for all followers."""
        entry.frame = frame
        if entry.sequence > self.oldest:
            self._bytes += len(frame)
            self._trim()

    def follow(self, cursor: StreamCursor) -> None:
        """Wake this follower from now on."""
        self._cursors[cursor.topic].add(cursor)
        self.followed.set()

    def unfollow(self, cursor: StreamCursor) -> None:
        """Stop waking this follower, and forget it."""
        cursors = self._cursors[cursor.topic]
        cursors.discard(cursor)
        if not cursors:
            del self._cursors[cursor.topic]
        if not self._cursors:
            self.followed.clear()

    def close(self) -> None:
        """Wake all followers so that they end: the service stops."""
        self.closed = True
        for cursors in self._cursors.values():
            for cursor in cursors:
                cursor.wake()

    def _skip(self, before: int, first: int) -> None:
        """Empty the buffer: events between `before` and `first` were never published, so all read the database."""
        self._buffer.clear()
        self._bytes = 0
        self.oldest = first - 1
        for cursors in self._cursors.values():
            _wake_after(before, cursors)

    def _trim(self) -> None:
        while len(self._buffer) > MOST_EVENTS or self._bytes > MOST_FRAME_BYTES:
            removed = self._buffer.popleft()
            self._bytes -= len(removed.frame or b"")
            self.oldest = removed.sequence


def _wake_after(position: int, cursors: Iterable[StreamCursor]) -> None:
    for cursor in cursors:
        cursor.wake_after(position)
