"""A start waits for a database that may be there soon, says so once for each reason, and waits for nothing else."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import DatabaseAway, StartError
from receiver.serving.start_wait import when_ready
from receiver.settings import Settings
from receiver.storage.schema import check_schema, migrate
from tests.fakes.command import CLEAN
from tests.fakes.ports import free_port
from tests.fakes.postgresql import own_server

pytestmark = pytest.mark.postgresql_only("is about a server that is away")

Logged = list[MutableMapping[str, Any]]
WAITING, THERE = "waiting for the database", "database is there"
ROOT = str(Path(__file__).resolve().parents[2])


async def waits(logged: Logged, work: "asyncio.Task[Any]", number: int) -> str:
    """Return the reason of the `number`th record that says that the start waits."""
    async with asyncio.timeout(30):
        while True:
            records = [record for record in logged if record["event"] == WAITING]
            if len(records) >= number:
                return str(records[number - 1]["reason"])
            assert not work.done()
            await asyncio.sleep(0.01)


async def test_a_start_waits_for_a_server_and_for_its_schema(settings: Settings, logged: Logged) -> None:
    async with own_server(fsync="off") as server:
        await server.stop()
        late = settings.model_copy(update={"database_url": server.url()})
        starting = asyncio.create_task(when_ready(lambda: check_schema(late), seconds=60))
        assert "start the server" in await waits(logged, starting, 1)
        await server.start()
        number = 2
        while "has no schema yet" not in await waits(logged, starting, number):
            number += 1  # it may be seen as it starts
        await migrate(late)
        await starting
    assert [record["event"] for record in logged].count(THERE) == 1


async def test_what_does_not_pass_by_itself_is_not_waited_for(settings: Settings, url: str, logged: Logged) -> None:
    wrong = settings.model_copy(update={"database_url": url.replace("postgres@", "no_such_role@")})
    with pytest.raises(StartError, match="correct the user"):
        await when_ready(lambda: check_schema(wrong), seconds=60)
    with pytest.raises(DatabaseAway, match="run `ringback migrate` once"):
        await when_ready(lambda: check_schema(settings), seconds=0)
    assert [record for record in logged if record["event"] == WAITING] == []


def test_sigterm_ends_a_start_that_waits_at_once(tmp_path: Path) -> None:
    environment = {
        **CLEAN,
        "PYTHONPATH": ROOT,
        "RINGBACK_DATABASE_URL": f"postgresql://u@127.0.0.1:{free_port()}/d",
        "RINGBACK_SECRET_KEY": "Kc5Vx8TqWm2Zr7HyLd4PgJ9n",
    }
    command = [sys.executable, "-m", "receiver.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert WAITING in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
