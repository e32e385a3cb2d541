"""Running a command's coroutine, so that Ctrl-C ends it without an error of the event loop."""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine and return its result; Ctrl-C cancels it, and a second one does not wait for its end.

    `asyncio.run` cancels in the signal's handler, which may run in the middle of a step of the loop: a future that
    the step is about to settle is then cancelled already, and the loop prints an error (InvalidStateError). Here the
    loop itself takes the signal, between two steps.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the coroutine.
    """
    interrupts = 0

    async def interruptible() -> T:
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[T]", asyncio.current_task())

        def interrupt() -> None:
            nonlocal interrupts
            interrupts += 1
            if interrupts > 1:
                raise KeyboardInterrupt
            task.cancel()

        if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
            return await main
        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await main
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        if interrupts:
            raise KeyboardInterrupt from None
        raise
