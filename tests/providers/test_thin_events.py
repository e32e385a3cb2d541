"""Webhooks that only name a task, or not even that: also when its create call is not answered yet."""

import asyncio
import base64
import hmac
import time
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.fakes.world import World, in_process
from tests.providers.kinds import FIRST_KINDS, ONLY_WEBHOOKS, Kind, at_provider, create

OPENAI = next(kind for kind in FIRST_KINDS if kind.provider == "openai")
GEMINI = next(kind for kind in FIRST_KINDS if kind.provider == "gemini")
OWN_SECRET = "whsec_" + base64.b64encode(b"a-secret-Kb7Ws3Yq9Lf5").decode()
HANGING = {"submit": "hang", "hang_seconds": 5, "webhook": "lost"}


async def told(world: World, name: str, account: str = "", secret: str = "") -> httpx.Response:
    """Send the event that a response has ended, signed with the secret of an account, by default the environment's."""
    secret = secret or world.environment["RINGBACK_PROVIDER_OPENAI_WEBHOOK_SECRET"]
    body = orjson.dumps({"object": "event", "id": "evt_1", "type": "response.completed", "data": {"id": name}})
    seconds = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, b"wh_1.%b.%b" % (seconds.encode(), body), "sha256")).decode()
    headers = {"webhook-id": "wh_1", "webhook-timestamp": seconds, "webhook-signature": f"v1,{signature}"}
    return await world.provider.post(f"{world.base}/hooks/openai{account}", content=body, headers=headers)


async def polls(world: World) -> int:
    requests: dict[str, int] = (await world.provider_stats())["requests"]
    return requests.get("GET /openai/v1/responses/{task_id}", 0)


async def hanging(world: World, kind: Kind) -> tuple["asyncio.Task[httpx.Response]", dict[str, Any]]:
    """Begin a create call that is answered after 5 s; return it, and what it made at the provider, which has ended."""
    creating = asyncio.create_task(create(world, kind, HANGING))
    async with asyncio.timeout(10):
        while not (found := await at_provider(world)) or found[0]["status"] != "completed":  # noqa: ASYNC110 - the twin's list
            await asyncio.sleep(0.02)
    return creating, found[0]


async def test_an_event_about_another_s_task_is_acknowledged_and_costs_no_call(world: World) -> None:
    answer = await told(world, "resp_of_another_program")
    assert answer.status_code == 200
    assert await polls(world) == 0


async def test_an_event_before_the_answer_to_the_create_call_is_told_apart_and_brings_the_end(tmp_path: Path) -> None:
    async with in_process(tmp_path, **ONLY_WEBHOOKS) as world:
        creating, there = await hanging(world, OPENAI)
        assert (await told(world, "resp_of_another_program")).status_code == 200
        assert await polls(world) == 1
        (task,) = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
        assert task["provider_task_id"] is None
        await world.provider_options(poll_status=500)
        unsaid = await told(world, f"resp_{there['task_id']}")
        assert (unsaid.status_code, unsaid.headers["retry-after"]) == (503, "10")
        await world.provider_options(poll_status=None)
        assert (await told(world, f"resp_{there['task_id']}")).status_code == 200
        assert (await world.task(task["task_id"]))["status"] == "completed"
        assert not creating.done()
        await creating
        assert (await world.task(task["task_id"]))["status"] == "completed"


async def test_an_event_at_an_account_s_address_is_about_its_tasks_alone(tmp_path: Path) -> None:
    async with in_process(tmp_path, **ONLY_WEBHOOKS) as world:
        base_url = world.environment["RINGBACK_PROVIDER_OPENAI_BASE_URL"]
        credentials = {"api_key": "openai-key-Pm4Xz8Rd2Ts6", "webhook_secret": OWN_SECRET}
        body = {"name": "eu", "credentials": credentials, "base_url": base_url}
        added = await world.api.post("/api/v1/providers/openai/accounts", json=body)
        assert added.status_code == 200, added.text
        address = f"/accounts/{added.json()['data']['id']}"
        uid = (await create(world, OPENAI, {"webhook": "lost"}, account="eu")).json()["data"]["task_id"]
        async with asyncio.timeout(10):
            while (await at_provider(world))[0]["status"] != "completed":  # noqa: ASYNC110 - the twin's list
                await asyncio.sleep(0.02)
        name = (await world.task(uid))["provider_task_id"]
        assert (await told(world, name)).status_code == 200
        assert await polls(world) == 0
        assert (await told(world, name, address)).status_code == 401
        assert (await told(world, "resp_of_another_program", address, OWN_SECRET)).status_code == 200
        assert await polls(world) == 0
        assert (await told(world, name, address, OWN_SECRET)).status_code == 200
        assert (await world.ended(uid))["status"] == "completed"


async def test_an_event_of_another_account_before_the_answer_to_the_create_call_costs_no_call(tmp_path: Path) -> None:
    async with in_process(tmp_path, **ONLY_WEBHOOKS) as world:
        creating, there = await hanging(world, OPENAI)
        credentials = {"api_key": "openai-key-Pm4Xz8Rd2Ts6", "webhook_secret": OWN_SECRET}
        body = {"name": "eu", "credentials": credentials}
        added = await world.api.post("/api/v1/providers/openai/accounts", json=body)
        name, address = f"resp_{there['task_id']}", f"/accounts/{added.json()['data']['id']}"
        assert (await told(world, name, address, OWN_SECRET)).status_code == 200
        assert await polls(world) == 0
        await creating


async def test_an_event_without_a_name_waits_for_the_answer_to_the_create_call(tmp_path: Path) -> None:
    async with in_process(tmp_path, **ONLY_WEBHOOKS) as world:
        creating, there = await hanging(world, GEMINI)
        jwt = {"webhook-signature": "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"}
        answer = await world.provider.post(there["endpoint"], json={"type": "video.generated"}, headers=jwt)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        uid = (await creating).json()["data"]["task_id"]
        answer = await world.provider.post(there["endpoint"], json={"type": "video.generated"}, headers=jwt)
        assert answer.status_code == 200
        assert (await world.ended(uid))["status"] == "completed"
