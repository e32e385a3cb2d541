"""A request for which a stop waits no longer: its client is told that it may have been done, in the path's form."""

import asyncio

import httpx
import pytest

from receiver.app import create_app
from receiver.serving.master_keys import master_keys
from receiver.storage.postgresql import connection
from tests.fakes import servers
from tests.fakes.held_commits import HELD, held_commits
from tests.fakes.rows import eventually
from tests.fakes.servers import served
from tests.fakes.world import API_KEY, World

pytestmark = pytest.mark.postgresql_only("a COMMIT is held there")

TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}


@pytest.mark.parametrize("path", ["/api/v1/task", "/api/v1/tasks"])
async def test_a_request_that_a_stop_breaks_off_is_answered_as_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(servers, "_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 1.5)
    body = {"tasks": [TASK]} if path == "/api/v1/tasks" else TASK
    async with httpx.AsyncClient(headers={"x-api-key": API_KEY}, timeout=40) as client:
        with held_commits(world.database):
            async with served(create_app(world.settings, master_keys(world.settings))) as base:
                asking = asyncio.create_task(client.post(f"{base}{path}", json=body))
                await eventually(world, HELD, lambda rows: rows)
            answer = await asking
    assert answer.status_code == 504
    assert "the service stops" in answer.text
