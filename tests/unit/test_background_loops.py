"""The background loops at a stop."""

import asyncio

from receiver.errors import OutcomeUnknown
from receiver.workers.supervisor import Supervisor


async def test_a_loop_that_answers_its_cancellation_with_an_error_ends_with_the_stop() -> None:
    begun = asyncio.Event()
    errors = [OutcomeUnknown()]

    async def loop() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if errors:  # as a claim does, whose commit is not confirmed
                raise errors.pop()

    supervisor = Supervisor({"loop": loop})
    supervisor.start()
    await begun.wait()
    async with asyncio.timeout(5):
        await supervisor.stop()
