"""The feed alone: what it keeps in memory, and which followers it wakes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from receiver.clock import utc_now
from receiver.events import feed as module
from receiver.events.feed import Feed, StreamCursor
from receiver.storage.transaction import NewEvent


def publish(feed: Feed, sequences: Sequence[int], task_uid: str = "a", organization_id: int = 1) -> None:
    """Publish events of one task."""
    fields: dict[str, Any] = {"task_id": 1, "type": "task.updated", "snapshot": {}, "created_at": utc_now()}
    event = NewEvent(uid="e", organization_id=organization_id, task_uid=task_uid, **fields)
    feed.publish([(sequence, event) for sequence in sequences])


def cursor(feed: Feed, topic: int | str, after: int) -> StreamCursor:
    """Return a follower that has read every event up to `after`."""
    found = StreamCursor(feed, topic, after)
    feed.follow(found)
    found.move(after)
    return found


def kept(feed: Feed, after: int) -> list[int] | None:
    """Return the sequence numbers of the events in memory after a position."""
    found = feed.since(after)
    return None if found is None else [entry.sequence for entry in found]


def test_it_keeps_the_events_published_since_it_began() -> None:
    feed = Feed()
    feed.begin(10)
    publish(feed, [11, 12])
    publish(feed, [13])
    assert kept(feed, 10) == [11, 12, 13]
    assert kept(feed, 12) == [13]
    assert kept(feed, 13) == []
    assert kept(feed, 9) is None  # from before it began


def test_after_it_begins_again_followers_read_earlier_events_from_the_database() -> None:
    feed = Feed()
    publish(feed, [1, 2])
    follower = cursor(feed, 1, 2)
    feed.begin(9)
    assert (follower.position, follower.caught_up) == (2, False)
    assert kept(feed, 2) is None
    publish(feed, [10])
    assert kept(feed, 9) == [10]


def test_it_knows_whether_it_has_followers() -> None:
    feed = Feed()
    assert not feed.followed.is_set()
    one, other = cursor(feed, 1, 0), cursor(feed, "a", 0)
    feed.unfollow(one)
    assert feed.followed.is_set()
    feed.unfollow(other)
    assert not feed.followed.is_set()


def test_it_drops_the_oldest_events_above_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 2)
    feed = Feed()
    publish(feed, [1, 2, 3])
    assert kept(feed, 1) == [2, 3]
    assert kept(feed, 0) is None


def test_it_drops_the_oldest_events_when_their_frames_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FRAME_BYTES", 100)
    feed = Feed()
    publish(feed, [1, 2, 3])
    for entry in feed.since(0) or []:
        feed.keep(entry, b"x" * 40)
    assert kept(feed, 0) is None
    assert kept(feed, 1) == [2, 3]
    publish(feed, [4])
    (entry,) = feed.since(3) or []
    feed.keep(entry, b"x" * 200)  # larger than all that may be kept: the follower that has the entry still shows it
    assert entry.frame == b"x" * 200
    assert kept(feed, 4) == []


def test_unpublished_numbers_are_read_from_the_database() -> None:
    feed = Feed()
    publish(feed, [1])
    follower = cursor(feed, 1, 1)
    publish(feed, [5])
    assert (follower.position, follower.caught_up) == (1, False)
    assert kept(feed, 1) is None
    assert kept(feed, 4) == [5]


def test_a_follower_that_is_caught_up_is_woken_just_before_the_first_event_for_it() -> None:
    feed = Feed()
    of_a, of_organization, of_another = cursor(feed, "a", 0), cursor(feed, 1, 0), cursor(feed, 2, 0)
    publish(feed, [1, 2], task_uid="b")
    assert (of_a.caught_up, of_a.position) == (True, 2)
    assert (of_organization.caught_up, of_organization.position) == (False, 0)
    publish(feed, [3], task_uid="a")
    assert (of_a.caught_up, of_a.position) == (False, 2)
    assert (of_organization.caught_up, of_organization.position) == (False, 0)
    assert (of_another.caught_up, of_another.position) == (True, 3)


async def test_an_event_ends_the_wait_and_so_does_the_stop() -> None:
    feed = Feed()
    follower = cursor(feed, 1, 0)
    assert not await follower.wait(0.0)
    waiting = asyncio.create_task(follower.wait(60))
    await asyncio.sleep(0)
    publish(feed, [1])
    assert await waiting
    follower.move(1)
    waiting = asyncio.create_task(follower.wait(60))
    await asyncio.sleep(0)
    feed.close()
    assert await waiting
    assert follower.closed


def test_a_follower_that_left_is_not_kept() -> None:
    feed = Feed()
    followers = [cursor(feed, "a", 0), cursor(feed, "a", 0)]
    for follower in followers:
        feed.unfollow(follower)
    assert not feed._cursors


async def test_waits_of_followers_end_in_time_by_one_timer_or_when_they_leave() -> None:
    feed = Feed()
    first, second, third = (cursor(feed, 1, 0) for _ in range(3))
    waits = [
        asyncio.ensure_future(each.wait(seconds)) for each, seconds in ((first, 0.02), (second, 0.03), (third, 30))
    ]
    await asyncio.sleep(0)
    assert len(feed.time_outs) == 3
    third.leave()
    assert await asyncio.gather(*waits) == [False, False, True]
