"""After the faults: fair weather, and a bounded wait until every task, run and delivery has ended."""

import asyncio
import os
import sys
import time
from typing import Any

import orjson

from tests.prove.weather import Weather
from tests.prove.world import API_KEY, World

CALM_SECONDS = 90.0
"""Within this time after the last fault everything has to have ended, unless a campaign has another."""
_OPEN = {
    "tasks": "SELECT count(*) AS n FROM task WHERE status NOT IN ('completed', 'failed', 'cancelled')",
    "runs": "SELECT count(*) AS n FROM run WHERE status NOT IN ('completed', 'failed', 'cancelled')",
    "deliveries": (
        "SELECT count(*) AS n FROM delivery d JOIN subscription s ON s.id = d.subscription_id "
        "WHERE d.status = 'pending' AND s.is_active"
    ),
}
_LOOK_SECONDS = 0.25
_STEADY_LOOKS = 4
"""How many looks in a row must find nothing open: an end may begin another attempt."""
_COMMAND_SECONDS = 60.0
_INHERITED = ("PATH", "PYTHONPATH")


async def calm_down(world: World, within: float) -> bool:
    """Stop all faults; return whether everything ended `within` these seconds. What is still open is written down."""
    world.provider.weather = Weather(lost=0.0)
    world.subscribers.faults = {}
    for endpoint in world.subscribers.endpoints.values():
        endpoint.faults = {}
    await world.start_all()
    began = time.monotonic()
    open_now: dict[str, int] = {}
    steady = 0
    while time.monotonic() - began < within and steady < _STEADY_LOOKS:
        open_now = _open_now(world)
        steady = 0 if any(open_now.values()) else steady + 1
        await asyncio.sleep(_LOOK_SECONDS)
    is_calm = steady == _STEADY_LOOKS
    seconds = round(time.monotonic() - began, 1)
    world.history.write("campaign", "calm", reached=is_calm, seconds=seconds, open=open_now)
    return is_calm


async def stream_to_its_end(world: World) -> None:
    """Wait until the follower of the stream has seen the last event; write down whether it did."""
    last = int(world.store.select("SELECT max(id) AS n FROM event")[0]["n"] or 0)
    reached = await world.follower.reaches(last, 30)
    world.history.write("campaign", "stream", reached=reached, last=last, seen=int(world.follower.last))


async def add_up(world: World) -> None:
    """Run `ringback report` against the service, and write down its exit status and what it printed."""
    environment = {**world.services[0].environment, "RINGBACK_URL": world.services[0].base}
    environment["RINGBACK_API_KEY"] = API_KEY
    status, printed, said = await _command(world, environment, "report", "--since", "24h", "--json")
    try:
        told: Any = orjson.loads(printed)
    except orjson.JSONDecodeError:
        told = None
    world.history.write("report", "report", status=status, missing=status == 2 and told is None, told=told, said=said)


def _open_now(world: World) -> dict[str, int]:
    found = {name: int(world.store.select(query)[0]["n"]) for name, query in _OPEN.items()}
    return {**found, "provider": world.provider.open}


async def _command(world: World, environment: dict[str, str], *arguments: str) -> tuple[int, bytes, str]:
    """Run a command of `ringback`; return its exit status, what it printed, and the end of what it said of errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "receiver.cli", *arguments),
        cwd=world.services[0].root,
        env={**{name: os.environ[name] for name in _INHERITED if name in os.environ}, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            printed, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, b"", "no end in time"
    return process.returncode or 0, printed, said.decode(errors="replace")[-500:]
