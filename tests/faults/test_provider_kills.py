"""`kill -9` while each provider makes a task, and when its webhook has come: nothing is lost and nothing made twice."""

import contextlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.providers.registry import APIS
from tests.fakes.rows import select
from tests.fakes.world import FAST_POLLING, PERSISTENT, ProcessWorld, in_processes
from tests.providers.kinds import CODED, Kind, create, declared, each

pytestmark = pytest.mark.long
KINDS = (*CODED, declared("kling"))
"""One of the declared ones is enough: all have the same adapter."""


def started_later(folder: Path, kind: Kind, **settings: Any) -> AbstractAsyncContextManager[ProcessWorld]:
    """Return a world with an account at the provider's twin, whose service the test starts."""
    named = () if kind.provider in APIS else (kind.provider,)
    return in_processes(folder, PERSISTENT, start=False, declared=named, **settings)


async def killed(world: ProcessWorld, kind: Kind, crash: str) -> str:
    """Create a task in a way that kills the service; return its id from the database."""
    await world.start(crash=crash)
    with contextlib.suppress(httpx.TransportError):
        await create(world, kind, {"outcome": "completed"})
    await world.died()
    (row,) = select(world, "SELECT uid FROM task")
    return str(row["uid"])


async def completed_once(world: ProcessWorld, uid: str) -> dict[str, Any]:
    task = await world.ended(uid)
    assert task["status"] == "completed"
    assert len((await world.provider.get("/sandbox/tasks")).json()["tasks"]) == 1
    ends = [event["type"] for event in await world.events(uid) if event["type"] == "task.completed"]
    assert len(ends) == 1
    return task


@each(*(kind for kind in KINDS if kind.is_told_of))
async def test_after_the_provider_made_it_a_webhook_tells_whose_task_it_is(tmp_path: Path, kind: Kind) -> None:
    async with started_later(tmp_path, kind) as world:
        uid = await killed(world, kind, "after_the_providers_answer")
        await world.start()
        await completed_once(world, uid)


@each(*KINDS)
@pytest.mark.parametrize("crash", ["before_the_commit_of_a_webhook", "after_the_commit_before_the_200"])
async def test_after_a_kill_by_its_webhook_the_task_ends_once(tmp_path: Path, kind: Kind, crash: str) -> None:
    async with started_later(tmp_path, kind, **FAST_POLLING) as world:
        uid = await killed(world, kind, crash)
        await world.start()
        await completed_once(world, uid)
