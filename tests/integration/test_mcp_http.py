"""`/mcp`: the tools for agents in the service, driven with the package's own client."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.organizations import another_organization
from tests.fakes.rows import change, eventually, select
from tests.fakes.world import API_KEY, World, in_process

if TYPE_CHECKING:
    from tests.fakes.agents import Agent

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = {"model": "Qubico/flux1-schnell", "task_type": "txt2img"}
PROMPT = {"prompt": "a cat"}
BY_HAND = {"outcome": "never", "webhook": "lost"}
RUN = [{"id": "only", "action": "Qubico/flux1-schnell:txt2img", "input": PROMPT}]
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
HEADERS = {"x-api-key": API_KEY, "accept": "application/json, text/event-stream"}
MODES = ("auto", "legacy")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module."""
    async with in_process(tmp_path_factory.mktemp("world"), max_request_bytes="33554432") as world:
        yield world


def agent(world: World, *, mode: str = "auto", **headers: str) -> "AbstractAsyncContextManager[Agent]":
    from tests.fakes.agents import over_http

    return over_http(f"{world.base}/mcp", headers or None, mode=mode)


def scripted(**sandbox: Any) -> dict[str, Any]:
    return {**PROMPT, "sandbox": sandbox}


async def key_of(world: World, **fields: Any) -> str:
    answer = await world.api.post("/api/v1/keys", json={"name": "an agent", **fields})
    return str(answer.json()["data"]["key"])


async def test_each_tool_does_what_it_says(world: World) -> None:
    webhook = await world.webhook()
    async with agent(world) as ours:
        names = await ours.tools()
        created = await ours.call("create_task", **TASK, input=scripted(outcome="failed"), metadata={"who": "each"})
        one = {"task_id": created["task_id"]}
        waited = await ours.call("wait_for_task", **one)
        assert (waited["has_ended"], waited["task"]["status"]) == (True, "failed")
        retried = await ours.call("retry_task", **one, idempotency_key="again")
        assert (retried["attempt"], (await ours.call("wait_for_task", **one))["task"]["attempt"]) == (2, 2)
        assert (await ours.call("get_task", **one))["status"] == "failed"
        listed = await ours.call("list_tasks", metadata={"who": "each"}, status="failed", limit=1)
        assert [item["task_id"] for item in listed["items"]] == [created["task_id"]]
        assert "input" not in listed["items"][0]
        pending = await ours.call("create_task", **TASK, input=scripted(**BY_HAND, pending_seconds=60))
        assert (await ours.call("cancel_task", task_id=pending["task_id"]))["status"] == "cancelled"

        run = {"run_id": (await ours.call("create_run", steps=RUN, metadata={"who": "each"}))["run_id"]}
        done = await ours.call("wait_for_run", **run)
        assert (done["has_ended"], done["run"]["status"]) == (True, "completed")
        assert (await ours.call("get_run", **run))["steps"][0]["status"] == "completed"
        assert (await ours.call("list_runs", metadata={"who": "each"}))["items"][0]["id"] == run["run_id"]
        steps = [{**RUN[0], "input": scripted(**BY_HAND, pending_seconds=60)}]
        other = {"run_id": (await ours.call("create_run", steps=steps))["run_id"]}
        assert (await ours.call("cancel_run", **other))["status"] == "cancelled"
        assert (await ours.call("retry_run", **other))["status"] in ("pending", "in_progress")
        assert (await ours.call("cancel_run", **other))["status"] == "cancelled"

        assert webhook["id"] in [each["id"] for each in (await ours.call("list_webhooks"))["items"]]
        sent = (await ours.call("list_deliveries", task_id=created["task_id"], webhook_id=webhook["id"]))["items"]
        shown = await ours.call("get_delivery", delivery_id=sent[0]["id"])
        assert shown["request"]
        called = {"create", "wait_for", "retry", "get", "cancel"}
        assert names == {f"{verb}_{noun}" for verb in called for noun in ("task", "run")} | {
            *("list_tasks", "list_runs", "list_webhooks", "list_deliveries", "get_delivery", "explain")
        }
    assert (await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")).is_success


async def test_a_state_is_explained(world: World) -> None:
    webhook = await world.webhook()
    task_id = await world.created(BY_HAND)
    async with agent(world) as ours:
        task = await ours.call("explain", kind="task", id=task_id)
        assert (task["task_id"], task["next"]["action"] in ("await_answer", "submit", "poll")) == (task_id, True)
        run_id = (await ours.call("create_run", steps=RUN))["run_id"]
        assert (await ours.call("explain", kind="run", id=run_id))["run_id"] == run_id
        await ours.call("wait_for_run", run_id=run_id)
        sent = (await ours.call("list_deliveries", webhook_id=webhook["id"]))["items"][0]["id"]
        assert (await ours.call("explain", kind="delivery", id=sent))["delivery_id"] == sent
    assert (await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")).is_success


@pytest.mark.parametrize("mode", MODES)
async def test_a_wait_tells_its_progress(world: World, mode: str) -> None:
    async with agent(world, mode=mode) as ours:
        task_id = await world.created({"duration": 0.4})
        waited = await ours.call("wait_for_task", task_id=task_id)
        assert (waited["has_ended"], waited["task"]["status"]) == (True, "completed")
        assert ours.progress
        assert "attempt 1 of 1" in ours.progress[0]


async def test_a_wait_whose_time_is_over_says_that_the_task_goes_on(world: World) -> None:
    task_id = await world.created(BY_HAND)
    async with agent(world) as ours:
        waited = await ours.call("wait_for_task", task_id=task_id, timeout_seconds=1)
    assert (waited["has_ended"], "call wait_for_task again" in waited["next"]) == (False, True)


async def test_a_cancelled_call_ends_its_wait(world: World) -> None:
    task_id = await world.created(BY_HAND)
    async with agent(world) as ours:
        waiting = asyncio.create_task(ours.call("wait_for_task", task_id=task_id, timeout_seconds=600))
        await streams(world, 1)
        waiting.cancel()
        await streams(world, 0)


async def streams(world: World, count: int) -> None:
    """Wait until the organization has this number of streams and long polls."""
    async with asyncio.timeout(10):
        while True:
            if (await world.api.get("/api/v1/organization")).json()["data"]["used"]["streams"] == count:
                return
            await asyncio.sleep(0.01)


async def test_a_create_whose_client_is_gone_is_finished(world: World) -> None:
    wanted = {**TASK, "input": scripted(submit="hang", hang_seconds=0.5), "idempotency_key": "gone"}
    async with agent(world) as ours:
        creating = asyncio.create_task(ours.call("create_task", **wanted, metadata={"gone": "yes"}))
        query = "SELECT uid FROM task WHERE CAST(metadata AS TEXT) LIKE '%gone%'"
        ((uid,),) = [row.values() for row in await eventually(world, query, lambda rows: rows)]
        creating.cancel()
        repeated = await ours.call("create_task", **wanted, metadata={"gone": "yes"})
    assert (repeated["task_id"], repeated["was_created_before"]) == (uid, True)


async def test_a_repeated_create_buys_nothing(world: World) -> None:
    before = (await world.provider_stats())["created"]
    async with agent(world) as ours:
        wanted = {**TASK, "input": PROMPT, "idempotency_key": "the-one-cat"}
        first, second = await ours.call("create_task", **wanted), await ours.call("create_task", **wanted)
        assert (first["task_id"], second["was_created_before"]) == (second["task_id"], True)
        run = {"steps": RUN, "idempotency_key": "the-one-run"}
        again = [(await ours.call("create_run", **run))["run_id"] for _ in range(2)]
        assert again[0] == again[1]
        await ours.call("wait_for_run", run_id=again[0])
        made = await ours.call("create_task", **TASK, input=PROMPT)
        assert made["idempotency_key"].startswith("mcp-")
        assert "another body" in await ours.refused("create_task", **{**wanted, "input": {"prompt": "a dog"}})
    assert (await world.provider_stats())["created"] - before == 3


async def test_a_large_output_is_cut_and_says_where_the_whole_is(world: World) -> None:
    task_id = await world.created()
    await world.ended(task_id)
    files = [{"url": "https://example.com/cat.png", "kind": "image", "name": "image_url"}]
    output = json.dumps({"output_files": files, "data": "x" * 10_000_000, "list": [{"n": n} for n in range(10_000)]})
    change(world, "UPDATE task SET output = ? WHERE uid = ?", output, task_id)
    async with agent(world) as ours:
        result = await ours.client.call_tool("get_task", {"task_id": task_id})
        assert len(result.model_dump_json()) < 80_000
        task = result.structured_content
        assert task["output"]["output_files"] == files
        assert "(cut: 10000000 characters)" in task["output"]["data"]
        uri = f"ringback://tasks/{task_id}"
        assert (task["shortened"]["bytes"] > 10_000_000, task["shortened"]["resource"]) == (True, uri)
        assert [getattr(block, "uri", None) for block in result.content] == [None, uri]
        assert 1_000 < len(await ours.read(uri)) < 400_000
        assert task_id in [item["task_id"] for item in (await ours.call("list_tasks", limit=5))["items"]]


async def test_resources_are_a_task_its_events_and_a_run(world: World) -> None:
    from mcp.shared.exceptions import MCPError

    task_id = await world.created(metadata={"name": "it"})
    await world.ended(task_id)
    async with agent(world) as ours:
        run_id = (await ours.call("create_run", steps=RUN))["run_id"]
        assert json.loads(await ours.read(f"ringback://tasks/{task_id}"))["metadata"] == {"name": "it"}
        events = json.loads(await ours.read(f"ringback://tasks/{task_id}/events"))["data"]
        assert [event["type"] for event in events][-1] == "task.created"
        assert json.loads(await ours.read(f"ringback://runs/{run_id}"))["id"] == run_id
        listed = {str(each.uri) for each in (await ours.client.list_resources()).resources}
        assert f"ringback://tasks/{task_id}" in listed
        assert len((await ours.client.list_resource_templates()).resource_templates) == 3
        for uri in ("ringback://tasks/no-such-task", "ringback://keys/1", "file:///etc/passwd"):
            with pytest.raises(MCPError):
                await ours.read(uri)


@pytest.mark.parametrize("mode", MODES)
async def test_a_read_key_sees_and_may_use_only_tools_that_read(world: World, mode: str) -> None:
    task_id, key = await world.created(), await key_of(world, scope="read")
    before = select(world, "SELECT COUNT(*) AS n FROM task")
    async with agent(world, mode=mode, **{"x-api-key": key}) as theirs:
        tools = await theirs.client.list_tools()
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools.tools)
        assert {"get_task", "wait_for_run"} <= {tool.name for tool in tools.tools}
        assert (await theirs.call("get_task", task_id=task_id))["task_id"] == task_id
        for name, arguments in (
            ("create_task", {**TASK, "input": PROMPT}),
            ("create_run", {"steps": RUN}),
            ("cancel_task", {"task_id": task_id}),
            ("retry_task", {"task_id": task_id}),
        ):
            assert "scope write" in await theirs.refused(name, **arguments)
    assert select(world, "SELECT COUNT(*) AS n FROM task") == before


async def test_a_tool_that_may_cost_money_says_so(world: World) -> None:
    async with agent(world) as ours:
        tools = {tool.name: tool for tool in (await ours.client.list_tools()).tools}
    buying = {name for name, tool in tools.items() if (tool.description or "").startswith("COSTS MONEY")}
    assert buying == {"create_task", "create_run", "retry_task", "retry_run"}
    for name, tool in tools.items():
        assert tool.annotations is not None
        assert tool.annotations.destructive_hint == name.startswith("cancel"), name
        assert tool.output_schema is not None, name


async def test_another_organization_sees_nothing_of_it(world: World) -> None:
    task_id = await world.created()
    async with agent(world, **another_organization(world)) as theirs:
        assert "does not exist" in await theirs.refused("get_task", task_id=task_id)
        assert (await theirs.call("list_tasks"))["items"] == []


async def test_a_failure_says_what_to_do(world: World) -> None:
    async with agent(world) as ours:
        unknown = await ours.refused("get_task", task_id="a/b %2F")
        assert "'a/b %2F' does not exist" in unknown
        assert "list_tasks" in unknown
        assert "is not an id" in await ours.refused("cancel_task", task_id="..")
        wrong = await ours.refused("get_task", task="1")
        assert "task_id: Field required" in wrong
        assert "task: Extra inputs" in wrong
        loop = await ours.refused("create_run", steps=[{**RUN[0], "depends_on": ["only"]}])
        assert "steps[0]" in loop
        refused = await ours.refused("create_task", **TASK, input=scripted(submit="rejected"))
        assert "HTTP 4" in refused


async def test_wrong_requests_are_refused_in_the_api_s_form(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.base, headers=HEADERS) as client:
        assert '"result":{}' in (await client.post("/mcp", json=PING)).text
        none = await client.post("/mcp", json=PING, headers={"x-api-key": "rb_tests_wrong_Zq7vW3kXr9TmLp4c"})
        assert (none.status_code, none.json()["error"]["code"]) == (401, "invalid_api_key")
        got = await client.get("/mcp")
        assert (got.status_code, got.headers["allow"]) == (405, "POST")
        large = await client.post("/mcp", content=b" " * 1_100_000, headers={"content-type": "application/json"})
        assert (large.status_code, "/mcp allows" in large.text) == (413, True)
        values = await client.post("/mcp", content=b"[" + b"1," * 210_000 + b"1]")
        assert (values.status_code, values.json()["error"]["code"]) == (413, "body_too_complex")
        for body in (b"", b"{", b"[]", b"[" * 100_000, b'{"jsonrpc":"2.0"}', b"\xff", b"1" * 10_000):
            for version in ({}, {"mcp-protocol-version": "2026-07-28"}, {"mcp-protocol-version": "x"}):
                answer = await client.post(
                    "/mcp", content=body, headers={"content-type": "application/json", **version}
                )
                assert answer.status_code == 400, (body[:20], version, answer.text)


async def test_pages_of_other_origins_are_refused(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.base, headers=HEADERS) as client:
        for origin, status in ((world.base, 200), ("http://rebound.example.com", 403), ("null", 403)):
            answer = await client.post("/mcp", json=PING, headers={"origin": origin})
            assert answer.status_code == status, origin


async def test_a_key_s_rate_limit_holds(world: World) -> None:
    headers = {**HEADERS, "x-api-key": await key_of(world, rate_limit=1)}
    async with httpx.AsyncClient(base_url=world.base, headers=headers) as client:
        answers = [await client.post("/mcp", json=PING) for _ in range(3)]
    assert [answer.status_code for answer in answers].count(429) >= 1
    assert "retry-after" in answers[-1].headers


async def test_without_the_package_it_says_what_to_install(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    for name in [name for name in sys.modules if name.startswith(("mcp.", "receiver.mcp.s"))]:
        monkeypatch.delitem(sys.modules, name)
    async with httpx.AsyncClient(base_url=world.base, headers=HEADERS) as client:
        answer = await client.post("/mcp", json=PING)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "pip install 'ringback[mcp]'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_stop_ends_a_wait(backend: str, tmp_path_factory: pytest.TempPathFactory, mode: str) -> None:
    from tests.fakes.agents import over_http

    async with in_process(tmp_path_factory.mktemp("stopped")) as world:
        task_id = await world.created(BY_HAND)
        connection = over_http(f"{world.base}/mcp", mode=mode)
        ours = await connection.__aenter__()
        waiting = asyncio.create_task(ours.refused("wait_for_task", task_id=task_id, timeout_seconds=600))
        await streams(world, 1)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 8
    assert "the service stops" in await waiting
    await connection.__aexit__(None, None, None)
