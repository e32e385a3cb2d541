"""`ringback mcp`: the tools for agents on stdin and stdout, started by the package's own client."""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.command import CLEAN, run_command
from tests.fakes.fork_server import fork_server
from tests.fakes.world import PERSISTENT, ProcessWorld, in_processes

if TYPE_CHECKING:
    from tests.fakes.agents import Agent

TASK = {"model": "Qubico/flux1-schnell", "task_type": "txt2img"}
PROMPT = {"prompt": "a cat"}
SETTINGS = {**CLEAN, "RINGBACK_URL": "http://127.0.0.1:9", "RINGBACK_API_KEY": "rb_tests_Zq7vW3kXr9TmLp4c"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.mark.long
async def test_a_wait_goes_on_while_the_service_restarts(tmp_path: Path) -> None:
    from tests.fakes.agents import over_http, over_stdio

    async with in_processes(tmp_path, PERSISTENT, root_path="/ringback") as world:
        base = f"{world.base}/ringback"
        async with over_stdio(base, tmp_path) as ours:
            assert {"create_task", "explain", "cancel_run"} <= await ours.tools()
            await wait_through_a_restart(world, ours)
            uri = (await ours.client.list_resources()).resources[0].uri
            assert json.loads(await ours.read(f"{uri}/events"))["data"]
            assert "'a/b' does not exist" in await ours.refused("get_task", task_id="a/b")
        assert (tmp_path / "mcp.err").read_text() == ""
        async with over_http(f"{base}/mcp", mode="legacy") as ours:
            task_id = (await ours.call("create_task", **TASK, input=PROMPT))["task_id"]
            assert (await ours.call("wait_for_task", task_id=task_id))["has_ended"]
            assert "'a/b' does not exist" in await ours.refused("get_task", task_id="a/b")


async def wait_through_a_restart(world: ProcessWorld, ours: "Agent") -> None:
    """Kill the service while a task is waited for, begin a create meanwhile, and start the service again."""
    task_id = (await ours.call("create_task", **TASK, input={**PROMPT, "sandbox": {"duration": 2.0}}))["task_id"]
    waiting = asyncio.create_task(ours.call("wait_for_task", task_id=task_id, timeout_seconds=60))
    await told(ours, "attempt 1 of 1")
    await world.kill()
    creating = asyncio.create_task(ours.call("create_task", **TASK, input=PROMPT, idempotency_key="once"))
    await told(ours, "trying again")
    await world.start()
    assert (await waiting)["task"]["status"] == "completed"
    repeated = await ours.call("create_task", **TASK, input=PROMPT, idempotency_key="once")
    assert ((await creating)["task_id"], True) == (repeated["task_id"], repeated["was_created_before"])


async def told(ours: "Agent", words: str) -> None:
    """Wait until a progress notification has these words."""
    async with asyncio.timeout(30):
        while True:
            if any(words in each for each in ours.progress):
                return
            await asyncio.sleep(0.02)


@pytest.mark.no_database("no service runs")
async def test_it_prints_the_protocol_alone_and_ends_with_its_stdin(tmp_path: Path) -> None:
    given = f"{json.dumps(INITIALIZE)}\nno JSON\n"
    status, out, _ = await run_command("mcp", folder=tmp_path, environment=SETTINGS, stdin=given)
    answers = [json.loads(line) for line in out.splitlines()]
    assert (status, answers[0]["id"], answers[0]["result"]["serverInfo"]["name"]) == (0, 1, "ringback")
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


@pytest.mark.no_database("no service runs")
async def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        ours.sendall(json.dumps(INITIALIZE).encode() + b"\n")
        streams = (theirs.fileno(),) * 3
        child = await fork_server().run("mcp", folder=tmp_path, environment=SETTINGS, streams=streams)
        ours.setblocking(False)
        async with asyncio.timeout(60):
            assert b"ringback" in await asyncio.get_running_loop().sock_recv(ours, 65_536)
            child.send_signal(signal.SIGINT)
            assert await child.wait() == -signal.SIGINT


@pytest.mark.no_database("no service runs")
async def test_without_a_key_it_says_what_to_set(tmp_path: Path) -> None:
    without = {name: value for name, value in SETTINGS.items() if name != "RINGBACK_API_KEY"}
    status, out, err = await run_command("mcp", folder=tmp_path, environment=without)
    assert (status, out, err) == (2, "", "ringback: set RINGBACK_API_KEY\n")
