"""`kill -9` of one of two replicas under load: the other finishes everything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.replicas import Replica, replicas
from tests.faults.load import PROVIDER, SETTINGS, Listener, Load, every_sequence, nothing_was_lost, subscribe

pytestmark = pytest.mark.postgresql_only("several processes")

HELD_CREATES = 4
HELD_DELIVERIES = 6


async def test_after_a_kill_of_one_of_two_the_other_finishes_everything(tmp_path: Path) -> None:
    async with replicas(tmp_path, PROVIDER, **SETTINGS) as pair:
        world, (killed, left) = pair.world, pair.each
        await subscribe(world)
        load, listener = Load(world), Listener([killed, left])
        async with listener.listening():
            async with load.running():
                await load.more(40)
                async with at_work(killed):
                    await killed.kill()
                await load.more(20)
            await nothing_was_lost(world, load)
            await load.waited()
            await listener.saw(every_sequence(world))
        assert listener.times == 2


@asynccontextmanager
async def at_work(replica: Replica) -> AsyncIterator[None]:
    """Keep it waiting: like the other for its subscribers' answers, and for the provider's to its creates."""
    held, let_go = asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> int:
        held.release()
        await let_go.wait()
        return 503

    replica.subscriber.answer = lambda _number, _request: hold()
    async with asyncio.timeout(10):
        for _ in range(HELD_DELIVERIES):
            await held.acquire()
        creating = [
            asyncio.create_task(replica.create({"submit": "hang", "hang_seconds": 60}, model="held"))
            for _ in range(HELD_CREATES)
        ]
        while await replica.made("held") < HELD_CREATES:
            pass
    yield
    replica.subscriber.answer = lambda _number, _request: 200
    let_go.set()
    await asyncio.gather(*creating, return_exceptions=True)
