"""What a service writes while it serves, as a whole: its form, its records, and what is not in them."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from receiver.api.answer_headers import AnswerHeadersMiddleware
from receiver.serving.connection_limits import ConnectionLimits
from tests.fakes.command import Ringback
from tests.fakes.pipeline import ACTIONS, WAITING, begin, ended, step, world_with_actions
from tests.fakes.servers import served
from tests.fakes.world import PROVIDER_KEY, ProcessWorld, World, in_process, in_processes

HOOK_SECRET = "a-shared-secret-Zq7vW3kXr9"


def records_of(world: ProcessWorld) -> list[dict[str, Any]]:
    """Return all that the service printed. Raises `ValueError` for a line that is not JSON."""
    return [dict(json.loads(line)) for line in world.log().splitlines()]


def named(records: list[dict[str, Any]], event: str) -> Iterator[dict[str, Any]]:
    return (record for record in records if record["event"] == event)


async def make_noise(world: ProcessWorld) -> str:
    """Do what is logged, errors included; return the id of a task that ended."""
    world.subscriber.answer = lambda _number, _request: 500
    await world.webhook()
    task_id = await world.created()
    await world.ended(task_id)
    run_id = await begin(world, step("a"))
    await ended(world, run_id)
    async with httpx.AsyncClient(base_url=world.base) as stranger:
        for _ in range(3):
            assert (await stranger.get("/api/v1/tasks", headers={"x-api-key": "rb_wrong"})).status_code == 401
        assert (await stranger.post("/hooks/piapi/tok_Secret7vW3", json={})).status_code == 401
        assert (await stranger.post("/hooks/piapi", headers={"x-webhook-secret": HOOK_SECRET})).status_code == 400
        assert (await stranger.get("/nowhere?api_key=tok_Secret7vW3&limit=3")).status_code == 404
    async with world.api.stream("GET", "/api/v1/events", headers={"accept": "text/event-stream"}) as stream:
        await anext(stream.aiter_bytes())
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"nonsense\r\n\r\n")
    assert b"400" in await reader.read(100)
    writer.close()
    return task_id


async def test_every_line_is_json_and_tells_of_all_that_happened_without_a_secret(tmp_path: Path) -> None:
    async with in_processes(
        tmp_path,
        start=False,
        piapi_webhook_secret=HOOK_SECRET,
        log_format="json",
        log_level="debug",
        access_log="true",
        retry_schedule="0",
        actions_file=str(ACTIONS),
    ) as world:
        del world.environment["RINGBACK_API_KEY"]  # the service makes the first key
        await world.start()
        (file,) = tmp_path.glob("*.admin-key")
        world.api.headers["x-api-key"] = key = file.read_text().strip()
        task_id = await make_noise(world)
        dead = {"status": "dead"}
        while not (await world.api.get("/api/v1/deliveries", params=dead)).json()["data"]["data"]:
            pass
        assert await world.stop() == 0
        records = records_of(world)
    for secret in (key, HOOK_SECRET, PROVIDER_KEY, "tok_Secret7vW3", "a cat"):
        assert secret not in world.log()
    (started,) = named(records, "service started")
    assert started["database"] == ("sqlite" if world.settings.is_sqlite else "postgresql")
    assert started["settings"]["RINGBACK_PIAPI_API_KEY"] == "set"
    (stopped,) = named(records, "service stopped")
    assert (records[-1]["event"], stopped["reason"]) == ("service stopped", signal.SIGTERM.name)
    (end,) = [record for record in named(records, "task ended") if record["task_id"] == task_id]
    assert (end["state"], end["provider"]) == ("completed", "piapi")
    events = {record["event"] for record in records}
    assert events >= {"run ended", "webhook failing", "audit entry", "inbound webhook", "inbound webhooks refused"}
    assert len(list(named(records, "requests refused"))) == 1  # of three: once a minute
    requests = {record["path"]: record for record in named(records, "request")}
    nowhere = {"status": 404, "query": "api_key=***&limit=3", "client": "127.0.0.1"}
    assert requests["/nowhere"].items() >= nowhere.items()
    assert requests["/api/v1/events"]["bytes"] > 0
    assert all("key_id" in requests[path] for path in ("/api/v1/task", "/api/v1/events", "/api/v1/webhooks"))
    assert requests["/hooks/piapi/***"]["status"] == 401
    assert all(record["request_id"] for record in requests.values())


@pytest.mark.no_database("it does not start")
async def test_an_error_that_stops_the_start_is_one_record(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RINGBACK_LOG_FORMAT=json\nRINGBACK_KEY_RATE=fast\nRINGBACK_UNKNOWN=1\n")
    async with httpx.AsyncClient() as unused:
        world = World.__new__(World)
        world.folder, world.base, world.api = tmp_path, "http://127.0.0.1:9", unused
        status, out, err = await Ringback(world).run("serve", "--port", "0")
    assert (status, out) == (2, "")
    record = json.loads(err)
    assert (record["event"], record["level"]) == ("service not started", "error")
    assert "RINGBACK_KEY_RATE" in record["error"]


async def test_the_id_that_a_trusted_proxy_gives_a_request_is_in_the_events_that_it_causes(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        world.api.headers["x-request-id"] = "from-the-proxy-1"
        answer = await world.create({"duration": 0.2})
        assert answer.headers["x-request-id"] == "from-the-proxy-1"
        task_id = answer.json()["data"]["task_id"]
        await world.ended(task_id)
        events = {event["type"]: event["request_id"] for event in await world.events(task_id)}
        assert events["task.created"] == "from-the-proxy-1"
        assert events["task.completed"].startswith("req_pi_")  # the provider's webhook, a request of its own
        for bad in ("with a blank", "x" * 129):
            given = (await world.api.get("/readyz", headers={"x-request-id": bad})).headers["x-request-id"]
            assert given.startswith("req_pi_")
        twice = [("x-request-id", "a"), ("x-request-id", "b")]
        async with httpx.AsyncClient(base_url=world.base) as other:
            assert (await other.get("/livez", headers=twice)).headers["x-request-id"].startswith("req_pi_")


async def test_all_events_of_a_run_that_a_request_creates_or_cancels_have_its_id(tmp_path: Path) -> None:
    async with world_with_actions(tmp_path) as world:
        world.api.headers["x-request-id"] = "creates"
        run_id = await begin(world, step("a", sandbox=WAITING))
        world.api.headers["x-request-id"] = "cancels"
        assert (await world.api.post(f"/api/v1/runs/{run_id}/cancel")).status_code < 300
        found = (await world.api.get("/api/v1/events", params={"run_id": run_id, "limit": 100})).json()["data"]["data"]
    causes = {event["type"]: event["request_id"] for event in found}
    assert causes["run.created"] == causes["task.created"] == "creates"
    assert causes["run.cancelled"] == "cancels"


@pytest.mark.no_database("a small application answers")
async def test_the_id_of_one_who_is_no_trusted_proxy_is_replaced() -> None:
    app = Starlette(middleware=[Middleware(AnswerHeadersMiddleware)])
    async with served(app, limits=ConnectionLimits(trusted_proxies="192.0.2.1")) as url, httpx.AsyncClient() as client:
        answer = await client.get(url, headers={"x-request-id": "mine", "x-forwarded-for": "192.0.2.1"})
    assert answer.headers["x-request-id"].startswith("req_pi_")
