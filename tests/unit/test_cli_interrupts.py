"""Ctrl-C while a command runs a coroutine."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from receiver.cli.interrupts import run_async


def test_ctrl_c_cancels_between_two_steps_of_the_loop_not_within_one() -> None:
    cancelled = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None

        def step() -> None:
            signal.raise_signal(signal.SIGINT)
            cancelled.append(task.cancelling())

        asyncio.get_running_loop().call_soon(step)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run_async(main())
    assert cancelled == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait_for_the_end() -> None:
    async def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run_async(main())


def test_a_coroutine_that_ends_well_after_ctrl_c_has_a_result() -> None:
    async def main() -> str:
        signal.raise_signal(signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "ended"

    assert run_async(main()) == "ended"


def test_a_cancellation_that_is_not_ctrl_c_stays_one() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_async(main())


def test_every_command_runs_its_coroutines_so() -> None:
    rooms = Path("receiver/cli").rglob("*.py")
    assert [room.name for room in rooms if "asyncio.run(" in room.read_text()] == ["interrupts.py"]
