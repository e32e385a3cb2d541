"""Turns between the writer and all else that runs on the event loop, where the writer's statements run on it too.

On SQLite a batch computes from its beginning to its end without a turn for others. If the next one began as soon
as writes wait, a flood of inbound webhooks would leave nearly nothing of the loop to the deliveries that follow from
them: they would pile up, at first in memory and then in the table, from which each costs more. So after a batch that
took long, the others have several turns, up to `OTHERS_SHARE` times as long as it took. They keep no batch waiting that
they do not need: a turn in which hardly anything ran shows that they wait for something themselves, such as a
subscriber's answer, and a subscriber that is slow slows no write.
"""

import asyncio
import time
from collections.abc import Callable

OTHERS_SHARE = 8.0
"""How much of the loop others may use for each second of a batch. Parsing a webhook, sending a delivery and reading its
answer take about four times as long as storing both; with just that, deliveries would catch up with nothing."""
LONGEST_SECONDS = 0.5
"""The most that others may use after any batch: a write that waits is not to time out for it."""
LONG_BATCH_SECONDS = 0.002
"""After a batch that computed for less than this, the others need no turns of their own."""
_IDLE_TURN_SECONDS = 0.0001
"""In a turn of the loop that takes less than this, hardly anything ran."""


async def leave_turns(took: float, is_hurried: Callable[[], bool]) -> None:
    """Let others use the loop, while they have something to do, after a batch that computed for `took` seconds.

    Return early where `is_hurried` returns True.
    """
    if took < LONG_BATCH_SECONDS:
        return
    now = time.monotonic()
    until = now + min(OTHERS_SHARE * took, LONGEST_SECONDS)
    while now < until and not is_hurried():
        began = now
        await asyncio.sleep(0)
        now = time.monotonic()
        if now - began < _IDLE_TURN_SECONDS:
            return
