"""The event that a connection has for as long as it is open."""

import asyncio
import sys

import pytest

from receiver.serving.lean_event import LeanEvent


async def test_all_that_wait_are_woken_and_one_that_is_cancelled_is_forgotten() -> None:
    event = LeanEvent()
    waiting = [asyncio.create_task(event.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    event.set()
    assert all(await asyncio.gather(waiting[0], waiting[2]))
    assert event.is_set()
    assert await event.wait()


async def test_who_waits_after_it_was_cleared_waits_until_it_is_set_again() -> None:
    event = LeanEvent()
    event.set()
    event.clear()
    waiting = asyncio.create_task(event.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not event.is_set()
    event.set()
    await waiting


async def test_each_time_that_it_is_set_is_told() -> None:
    event, told = LeanEvent(), [0]

    def note() -> None:
        told[0] += 1

    event.set()
    event.when_set = note
    event.set()
    event.clear()
    event.set()
    assert told == [2]


async def test_at_rest_it_holds_less_than_a_hundred_bytes() -> None:
    event = LeanEvent()
    event.set()
    assert sys.getsizeof(event) < 100
    assert event._waiting is None
