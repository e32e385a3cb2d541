"""Pi as a provider, where it differs from the others: runs that are polled, and one address for all webhooks."""

import asyncio
import hmac
import json
from typing import Any

import pytest

from tests.fakes.world import FAST_POLLING, WEBHOOK_SECRET, World, in_process

STEPS = [{"id": "hero", "action": "campaigns.generate", "input": {"prompt": "an ad"}}]


async def created(world: World, model: str, given: dict[str, Any]) -> str:
    body = {"provider": "pi", "model": model, "task_type": "any", "input": given}
    answer = await world.api.post("/api/v1/task", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


async def told(world: World, job: str, *, secret: str = WEBHOOK_SECRET) -> int:
    """Send an event of a job to the account's address; return the status of the answer."""
    event = {"id": "evt_pi_1", "object": "event", "type": "job.completed", "data": {"job": {"id": job}}}
    body = json.dumps(event).encode()
    signature = f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}"
    headers = {"x-pi-event": "job.completed", "x-pi-signature": signature}
    return (await world.provider.post(f"{world.base}/hooks/pi", content=body, headers=headers)).status_code


async def tells_nothing_by_itself(world: World) -> None:
    """Switch off the account's address at Pi, so that the only webhooks are those of the test."""
    path, key = "/pi/api/v1/webhooks", {"authorization": "Bearer any"}
    (registered,) = (await world.provider.get(path, headers=key)).json()["data"]["data"]
    answer = await world.provider.patch(f"{path}/{registered['id']}", json={"is_active": False}, headers=key)
    assert answer.json()["data"]["is_active"] is False


async def test_a_run_of_pi_s_is_polled_to_its_end(tmp_path: Any) -> None:
    async with in_process(tmp_path, **FAST_POLLING) as world:
        task = await world.ended(await created(world, "runs", {"steps": STEPS, "metadata": {"n": 1}}))
        assert task["status"] == "completed"
        (step,) = task["output"]["steps"]
        assert (step["id"], step["status"]) == ("hero", "completed")
        assert task["output"]["output_files"][0]["url"].startswith("http")
        failed = await world.ended(await created(world, "runs", {"steps": STEPS, "sandbox": {"outcome": "failed"}}))
        assert (failed["status"], failed["error"]["message"]) == ("failed", "task failed")


async def test_a_graph_that_pi_refuses_fails_the_task_with_pi_s_words(world: World) -> None:
    body = {"provider": "pi", "model": "runs", "task_type": "any", "input": {"steps": STEPS * 2}}
    answer = await world.api.post("/api/v1/task", json=body)
    assert (answer.status_code, answer.json()["message"]) == (400, "duplicate_step_id")


async def test_a_webhook_is_only_news_of_a_job_that_is_asked_for(tmp_path: Any) -> None:
    async with in_process(tmp_path, poll_first_seconds="600") as world:
        await tells_nothing_by_itself(world)
        task = await created(world, "campaigns.generate", {"prompt": "an ad"})
        job = (await world.task(task))["provider_task_id"]
        assert await told(world, job, secret="another-secret") == 401
        assert (await world.task(task))["status"] == "pending"
        assert await told(world, "a-job-of-a-run") == 200
        assert len((await world.api.get("/api/v1/tasks")).json()["data"]["data"]) == 1
        (there,) = (await world.provider.get("/sandbox/tasks")).json()["tasks"]
        async with asyncio.timeout(10):
            while not there["terminal"]:
                (there,) = (await world.provider.get("/sandbox/tasks")).json()["tasks"]
        assert await told(world, job) == 200
        assert (await world.ended(task))["status"] == "completed"


@pytest.mark.parametrize("secret", ["", "wrong-secret"])
async def test_without_the_registered_secret_every_webhook_is_refused(tmp_path: Any, secret: str) -> None:
    async with in_process(tmp_path, provider_pi_webhook_secret=secret) as world:
        assert await told(world, "any") == 401
        assert await told(world, "any", secret=secret or " ") == (200 if secret else 401)


async def test_an_account_without_an_address_is_named_as_the_fault(tmp_path: Any) -> None:
    async with in_process(tmp_path, provider_pi_base_url="") as world:
        body = {"provider": "pi", "model": "runs", "task_type": "any", "input": {"steps": STEPS}}
        answer = await world.api.post("/api/v1/task", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
        assert "has no base_url" in answer.text
