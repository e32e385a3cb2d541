"""The watchdog of the event loop."""

import asyncio
import sys
import time

import pytest
import uvloop
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from receiver.loop_watchdog import LONGEST_SECONDS, LoopWatchdog, Stall


def hold(seconds: float, secret: str) -> None:
    """Hold the loop."""
    assert secret
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def watched(stalls: list[Stall], *seconds: float) -> None:
    """Hold the loop for each of these times, one after the other, and wait until the watchdog has seen it."""
    seen = asyncio.Event()

    def on_stall(stall: Stall) -> None:
        stalls.append(stall)
        seen.set()

    with LoopWatchdog(on_stall).watching():
        for each in seconds:
            seen.clear()
            hold(each, "a-secret")
            if each > LONGEST_SECONDS:
                await asyncio.wait_for(seen.wait(), 30)
            else:
                await asyncio.sleep(0.1)  # the time in which it would be told of one


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_stall_is_logged_with_the_places_that_held_the_loop_and_no_values(runner: object) -> None:
    stalls: list[Stall] = []
    assert callable(runner)
    with capture_logs() as records:
        runner(watched(stalls, 0.6, 0.6))
    assert [stall.seconds > LONGEST_SECONDS for stall in stalls[:2]] == [True, True]
    stack = stalls[0].stack
    assert any(place.startswith("tests/unit/test_loop_watchdog.py:") and place.endswith(" hold") for place in stack)
    logged = [record for record in records if record["event"] == "event loop stalled"]
    assert len(logged) == 1, "one record in five seconds"
    assert logged[0]["places"] == list(stack)
    assert "a-secret" not in str(records)


def hold_first(seconds: float) -> None:
    """Hold the loop, in another function."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def held_by_two(stalls: list[Stall]) -> None:
    seen = asyncio.Event()

    def on_stall(stall: Stall) -> None:
        stalls.append(stall)
        seen.set()

    with LoopWatchdog(on_stall).watching():
        hold_first(0.25)
        hold(0.75, "a-secret")
        await asyncio.wait_for(seen.wait(), 30)


def test_the_stack_is_that_of_what_held_the_loop_longest() -> None:
    stalls: list[Stall] = []
    asyncio.run(held_by_two(stalls))
    assert stalls[0].stack[-1].endswith(" hold")


def test_the_thread_may_look_while_the_callback_reads_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.loop_watchdog._INTERVAL", 0.0)
    monkeypatch.setattr("receiver.loop_watchdog._LOOK_SECONDS", 0.0)
    failures: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        with LoopWatchdog().watching():
            for _ in range(300):
                hold(0.002, "a-secret")
                await asyncio.sleep(0)

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(run())
    finally:
        sys.setswitchinterval(switching)
    assert failures == []


def test_the_record_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(watched([], 0.6))
    written = capsys.readouterr().err
    assert "event loop stalled" in written
    assert "test_loop_watchdog.py" in written


def test_every_lag_is_measured() -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("ringback_loop_lag_seconds_count", {"worker": "0"}) or 0.0

    before = count()
    asyncio.run(watched([], 0.0))
    assert count() > before
