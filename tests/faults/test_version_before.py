"""The version before runs beside this one: on this version's schema, while it is rolled out, and after a way back.

The version before is taken from the history. Where the history is missing (a shallow clone), there is nothing to test.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from receiver.providers.registry import APIS
from receiver.storage.schema import current_revision, migrate
from tests.fakes import databases
from tests.fakes.ports import free_port
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.world import FAST_POLLING, World, in_processes

VERSIONS_BEFORE = {"schema_0013": "54f89f9", "schema_0018": "bdf163b"}
"""The last commit before each group of migrations that landed together. The first refuses to start on a schema that it
does not know; what follows it starts on each that only adds (`tests/storage/test_compatibility.py`)."""
ROOT = Path(__file__).parents[2]
EACH = 5

pytestmark = pytest.mark.postgresql_only("several versions at a time need PostgreSQL")


@pytest.fixture(params=VERSIONS_BEFORE.values(), ids=list(VERSIONS_BEFORE))
def code_before(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "before"
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", request.param, "receiver", "models", "migrations"], cwd=ROOT, capture_output=True
    )
    if archive.returncode != 0:
        pytest.skip(f"the history has no commit {request.param}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


async def test_the_version_before_goes_on_while_this_one_is_rolled_out(tmp_path: Path, code_before: Path) -> None:
    databases.present.environment(tmp_path, migrated=False)
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        await command_before(code_before, world, "migrate")
        async with served_before(code_before, world) as before:
            await before.webhook()
            ids = [await before.created() for _ in range(EACH)]
            revision = await current_revision(world.settings)
            assert await migrate(world.settings) != (revision, revision)
            await world.start()
            both = [await each.created() for _ in range(EACH) for each in (before, world)]
            for task_id in (*ids, *both):
                assert (await before.ended(task_id))["status"] == "completed"
                assert (await world.task(task_id))["status"] == "completed"
            wanted = {*ids, *both}
            await world.subscriber.until(
                lambda told: {each.json["data"]["task_id"] for each in told if is_completed(each)} == wanted
            )
            events = [each.event_id for each in world.subscriber.received if is_completed(each)]
            assert len(set(events)) == len(wanted)  # one completion each, whichever process delivered it
            assert (await before.api.get("/readyz")).status_code == 200
            assert (await world.api.get("/readyz")).status_code == 200


def is_completed(told: ReceivedDelivery) -> bool:
    return bool(told.json["type"] == "task.completed")


@asynccontextmanager
async def served_before(code: Path, world: World) -> AsyncIterator[World]:
    """Serve the world's database with the version before, at a port of its own."""
    port = free_port()
    environment = {**world.environment, "RINGBACK_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    before = World(world.folder, port, environment, world.subscriber)
    # What it answers is not described by this version.
    before.api = httpx.AsyncClient(base_url=before.base, headers=world.api.headers, timeout=40)
    process = await begin(code, environment, "serve", "--port", str(port))
    try:
        async with before.api, before.provider:
            async with asyncio.timeout(60):
                while True:
                    assert process.returncode is None, "the version before did not start"
                    try:
                        if (await before.api.get("/readyz")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.02)
            yield before
            assert process.returncode is None, "the version before has ended"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def command_before(code: Path, world: World, *arguments: str) -> None:
    process = await begin(code, world.environment, *arguments)
    assert await process.wait() == 0


async def begin(code: Path, environment: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    # Of providers that it does not have; it refuses settings that it does not know.
    newer = tuple(f"RINGBACK_PROVIDER_{name.upper()}_" for name in APIS)
    environment = {name: value for name, value in environment.items() if not name.startswith(newer)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "receiver.cli", *arguments),
        cwd=code,
        env={**own, **environment, "PYTHONPATH": str(code)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
