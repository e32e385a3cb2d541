"""`kill -9` during a replay: it continues where it stopped, and creates no delivery of an event twice."""

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.outbound.replays import BATCH
from tests.fakes.past_events import add_events, hours_ago
from tests.fakes.rows import select
from tests.fakes.world import ProcessWorld, in_processes

EVENTS = 300
DUPLICATES = "SELECT event_id, subscription_id FROM delivery GROUP BY event_id, subscription_id HAVING count(*) > 1"


async def replay_everything(world: ProcessWorld, webhook: dict[str, Any]) -> None:
    """Request a replay of all events; a service that dies during it may not respond."""
    try:
        answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json={"since": hours_ago(2)})
    except httpx.TransportError:
        return
    assert (answer.status_code, answer.json()["data"]["deliveries"]) == (202, EVENTS)


async def completes(world: ProcessWorld, webhook: dict[str, Any], wanted: list[str]) -> Counter[str]:
    """Wait until the replay is done; check its counters and that each event has one delivery and was received.

    Return how often each event was received.
    """
    while True:
        listing = (await world.api.get(f"/api/v1/webhooks/{webhook['id']}/replays")).json()["data"]["data"]
        (replay,) = listing
        if replay["status"] != "running" and replay["pending"] == 0:
            break
    assert (replay["status"], replay["deliveries"], replay["sent"]) == ("done", EVENTS, EVENTS)
    assert replay["delivered"] == EVENTS
    assert select(world, "SELECT count(*) AS count FROM delivery") == [{"count": EVENTS}]
    assert select(world, DUPLICATES) == []
    received = Counter(each.event_id for each in world.subscriber.received)
    assert received.keys() == set(wanted)
    return received


@pytest.mark.parametrize(
    ("point", "sent"), [("between_two_batches_of_a_replay", BATCH), ("before_the_commit_of_a_batch_of_a_replay", 0)]
)
async def test_a_replay_continues_after_a_kill_at_a_named_point(tmp_path: Path, point: str, sent: int) -> None:
    async with in_processes(tmp_path, start=False) as world:
        await world.start(crash=point)
        wanted = add_events(world, EVENTS)
        webhook = await world.webhook()
        await replay_everything(world, webhook)
        await world.died()
        assert select(world, "SELECT status, sent FROM replay") == [{"status": "running", "sent": sent}]
        assert select(world, "SELECT count(*) AS count FROM delivery") == [{"count": sent}]
        await world.start()
        await completes(world, webhook, wanted)


@pytest.mark.parametrize("received_before", [1, 60, 220])
async def test_a_replay_continues_after_a_kill_in_the_middle(tmp_path: Path, received_before: int) -> None:
    async with in_processes(tmp_path) as world:
        wanted = add_events(world, EVENTS)
        webhook = await world.webhook()
        await replay_everything(world, webhook)
        await world.subscriber.until(lambda each: len(each) >= received_before)
        await world.kill()
        settled = select(
            world, "SELECT e.uid FROM delivery d JOIN event e ON e.id = d.event_id WHERE status = 'delivered'"
        )
        await world.start()
        received = await completes(world, webhook, wanted)
        # Only deliveries that were in flight at the kill are sent again.
        assert {uid for uid, times in received.items() if times > 1}.isdisjoint(row["uid"] for row in settled)
