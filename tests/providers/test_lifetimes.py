"""How often a provider may be asked, and how long it keeps tasks and outputs."""

from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from receiver.providers.fal import Fal
from tests.fakes.dashboard import signed_in
from tests.fakes.world import FAST_POLLING, World, in_process

FAL: dict[str, Any] = {"provider": "fal", "model": "fal-ai/flux/dev"}
NEVER = {"outcome": "never"}
LOST = {"poll": "not_found", "poll_failures": 1000, "webhook": "lost"}


def kept_by_fal(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    monkeypatch.setattr(Fal, "capabilities", replace(Fal.capabilities, **changed))


async def explained(world: World, task: str) -> dict[str, Any]:
    answer = await world.api.get(f"/api/v1/tasks/{task}/explain")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def wait_of(world: World, task: str) -> float:
    """Return how long a task waits for the next look at it, in seconds."""
    found = await explained(world, task)
    return seconds_between(found["explained_at"], found["next"]["at"])


def seconds_between(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


async def test_a_task_is_not_looked_at_more_often_than_its_provider_allows(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_by_fal(monkeypatch, least_poll_seconds=500.0)
    async with in_process(tmp_path, poll_first_seconds="60", poll_max_seconds="90") as world:
        seldom, usual = await world.created(NEVER, **FAL), await world.created(NEVER)
        for _ in range(2):
            assert 450 <= await wait_of(world, seldom) <= 500
            assert await wait_of(world, usual) <= 90
            for task in (seldom, usual):  # a look that a client asks for puts the next one off
                assert (await world.api.post(f"/api/v1/tasks/{task}/refresh")).status_code == 200


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "it keeps one for 0 s"), (3600.0, "does not know the task; retry")]
)
async def test_a_task_that_its_provider_has_forgotten_fails_with_words_that_say_so(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, words: str
) -> None:
    kept_by_fal(monkeypatch, record_seconds=seconds)
    async with in_process(tmp_path, missing_polls="1", missing_seconds="0", **FAST_POLLING) as world:
        task = await world.ended(await world.created(LOST, **FAL))
        assert (task["status"], task["error"]["code"]) == ("failed", "provider_lost_task")
        assert words in task["error"]["message"]


async def test_it_is_told_when_the_provider_deletes_the_outputs(world: World) -> None:
    done = await world.ended(await world.created(**FAL))
    facts = (await explained(world, done["task_id"]))["facts"]
    assert seconds_between(done["ended_at"], facts["outputs_expire_at"]) == pytest.approx(7 * 86_400, abs=1)
    async with signed_in(world) as client:
        assert "The provider deletes its outputs" in (await client.get(f"/tasks/{done['task_id']}")).text
    failed = await world.ended(await world.created({"outcome": "failed"}, **FAL))
    unknown = await world.ended(await world.created())
    for task in (failed, unknown):
        assert (await explained(world, task["task_id"]))["facts"]["outputs_expire_at"] is None
