"""A rolling restart under load: while one replica stops and starts, the other answers."""

import time
from pathlib import Path

import pytest

from tests.fakes.replicas import replicas
from tests.faults.load import PROVIDER, SETTINGS, Listener, Load, every_sequence, nothing_was_lost, subscribe

pytestmark = pytest.mark.postgresql_only("several processes")

LEASE_SECONDS = 33
"""The shortest lease there is, that of a delivery with a timeout of 1 s."""


async def test_a_rolling_restart_answers_nothing_but_200_and_leaves_no_lease_behind(tmp_path: Path) -> None:
    timeouts = {"delivery_timeout_seconds": "1", "provider_timeout_seconds": "1"}
    async with replicas(tmp_path, PROVIDER, hasty=False, **timeouts, **SETTINGS) as pair:
        world = pair.world
        await subscribe(world)
        load, listener = Load(world), Listener(pair.each)
        async with listener.listening():
            async with load.running():
                for replica in pair.each:
                    await load.more(20)
                    assert await replica.stop() == 0, replica.log()
                    await load.more(10)
                    await replica.start()
                await load.more(20)
            ended = time.monotonic()
            await nothing_was_lost(world, load)
            await load.waited()
            await listener.saw(every_sequence(world))
        assert {answer.status for answer in pair.balancer.answers} == {200}
        assert time.monotonic() - ended < LEASE_SECONDS / 2
        assert load.unanswered == 0
