"""The provider calls of two replicas: together they keep within one rate limit, and both obey one 429."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.sandbox import create_sandbox
from tests.fakes.replicas import Replicas, replicas
from tests.fakes.servers import served
from tests.fakes.world import QUICK

pytestmark = [pytest.mark.postgresql_only("SQLite has one process"), pytest.mark.long]

RATE = 20
CREATES = 60
RETRY_AFTER = 2
JITTER_SECONDS = 0.5
"""The largest difference between the arrivals of two calls that were allowed at the same time."""
CLOCK_SKEW_SECONDS = 0.2
"""The largest difference between the times at which two processes end the same pause."""


@dataclass(frozen=True)
class Call:
    """A call to the provider: when it was received, and the status of its response."""

    at: float
    status: int


class RecordedProvider:
    """A provider that records the calls that it receives, except those to its own controls."""

    def __init__(self, app: ASGIApp) -> None:
        self.calls: list[Call] = []
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/sandbox/"):
            await self._app(scope, receive, send)
            return
        called = time.monotonic()

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.calls.append(Call(called, message["status"]))
            await send(message)

        await self._app(scope, receive, note)


async def test_two_replicas_share_one_rate_limit_and_a_429_to_one_pauses_both(tmp_path: Path) -> None:
    provider = RecordedProvider(create_sandbox(QUICK))
    async with (
        served(provider) as base,
        replicas(tmp_path, short_leases=False, piapi_base_url=base, provider_rate=f"{RATE}/s") as pair,
    ):
        began = time.monotonic()
        await create(pair, CREATES)
        task_id = await pair.each[0].created({"submit": "rate_limited", "retry_after": RETRY_AFTER})
        await create(pair, CREATES // 2)
        await pair.world.ended(task_id)
        assert (await pair.world.provider_stats())["created"] == CREATES + CREATES // 2 + 1
    calls = sorted(call.at for call in provider.calls)
    (refusal,) = (call.at for call in provider.calls if call.status == 429)
    pause_ends = refusal + RETRY_AFTER - CLOCK_SKEW_SECONDS
    assert [at for at in calls if refusal + JITTER_SECONDS < at < pause_ends] == []
    assert too_early(calls, began) == []
    assert too_early([at for at in calls if at >= pause_ends], pause_ends) == []


async def create(pair: Replicas, tasks: int) -> None:
    """Create tasks at both replicas at once, half at each."""
    creating = [pair.each[number % 2].created(input={"prompt": f"{number}"}) for number in range(tasks)]
    await asyncio.gather(*creating)


def too_early(calls: Sequence[float], began: float) -> list[float]:
    """Return those of the calls that exceed what one process may make: a burst of `RATE`, and then `RATE` a second.

    Counted from `began`, before the first call, and not from call to call: a call may arrive late, but never early.
    """
    return [at for number, at in enumerate(calls) if at < began + (number - RATE) / RATE]
