"""The calls to a provider that two replicas make: together they keep within one budget, and obey one 429."""

import asyncio
import itertools
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

pytestmark = pytest.mark.postgresql_only("several processes")

RATE = 20
CREATES = 60
RETRY_AFTER = 2
JITTER_SECONDS = 0.5
"""How much later than another a call may arrive that was allowed at the same time."""
CLOCKS_SECONDS = 0.2
"""How exactly processes agree on when a pause ends."""


@dataclass(frozen=True)
class Call:
    """A call to the provider: when it came, and how it was answered."""

    at: float
    status: int


class Watched:
    """A provider, and the calls that it got."""

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


async def test_two_together_call_as_often_as_one_may_and_a_429_to_one_holds_for_both(tmp_path: Path) -> None:
    provider = Watched(create_sandbox(QUICK))
    async with (
        served(provider) as base,
        replicas(tmp_path, short_leases=False, piapi_base_url=base, provider_rate=f"{RATE}/s") as pair,
    ):
        await create(pair, CREATES)
        task_id = await pair.each[0].created({"submit": "rate_limited", "retry_after": RETRY_AFTER})
        await create(pair, CREATES // 2)
        await pair.world.ended(task_id)
        assert (await pair.world.provider_stats())["created"] == CREATES + CREATES // 2 + 1
    within_budget([call.at for call in provider.calls])
    (refusal,) = (call.at for call in provider.calls if call.status == 429)
    assert not [call for call in provider.calls if JITTER_SECONDS < call.at - refusal < RETRY_AFTER - CLOCKS_SECONDS]


async def create(pair: Replicas, tasks: int) -> None:
    """Create tasks at both at once, half at each."""
    creating = [pair.each[number % 2].created(input={"prompt": f"{number}"}) for number in range(tasks)]
    await asyncio.gather(*creating)


def within_budget(moments: Sequence[float]) -> None:
    """At no time were there more calls than one process may make: a second's worth at once, and so many a second."""
    for (first, began), (last, ended) in itertools.combinations(enumerate(sorted(moments)), 2):
        assert last - first + 1 <= RATE + RATE * (ended - began + JITTER_SECONDS), (began, ended)
