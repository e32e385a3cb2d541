"""A rolling restart under load: while one replica restarts, the other one answers."""

from pathlib import Path

import pytest

from tests.fakes.replicas import replicas
from tests.faults.load import PROVIDER, SETTINGS, Listener, Load, every_sequence, nothing_was_lost, subscribe

pytestmark = [pytest.mark.postgresql_only("several processes"), pytest.mark.long]


async def test_a_rolling_restart_answers_every_webhook_with_200_and_leaves_no_lease(tmp_path: Path) -> None:
    async with replicas(tmp_path, PROVIDER, short_leases=False, **SETTINGS) as pair:
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
            # Leases last 90 s and longer: if one were left behind, this would time out before the lease does.
            await nothing_was_lost(world, load)
            await load.waited()
            await listener.saw(every_sequence(world))
        answers = pair.balancer.answers
        assert {answer.status for answer in answers if answer.path.startswith("/hooks/")} == {200}
        assert {answer.status for answer in answers} <= {200, 502}
