"""`ringback serve --workers 2` itself, on PostgreSQL; and why SQLite has one."""

import os
import re
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from receiver.cli.failure import Status
from tests.fakes import databases
from tests.fakes.workforce import ENDED, READY, RENEWED, Service, kept, load

API_KEY = "an-admin-key-for-the-tests"
on_postgresql = pytest.mark.postgresql_only("several processes")


def two_workers(folder: Path, *, migrated: bool = True, **settings: str) -> AbstractAsyncContextManager[Service]:
    """Run `ringback serve` with two workers on the folder's database."""
    environment = databases.present.environment(folder, migrated=migrated)
    serve = ("receiver.cli", "serve", "--port", "0", "--workers", "2")
    return kept(folder, *serve, RINGBACK_LOG_FORMAT="json", **environment, **settings)


@on_postgresql
async def test_both_workers_answer_and_one_that_is_killed_comes_back(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as service:
        await service.begin(2)
        (key,) = re.findall(r"rb_\S+", service.printed)  # made once, and known to both
        for pid in service.pids:
            with service.only(pid):
                await service.get("/readyz")
                await service.get("/api/v1/tasks", **{"x-api-key": key})
        killed, left = service.pids
        os.kill(killed, signal.SIGKILL)
        assert (await service.logged(ENDED))["status"] == -signal.SIGKILL
        await service.logged(READY)
        service.pids.remove(killed)
        with service.only(service.pids[-1]):
            await service.get("/readyz")
        assert left in service.pids
        assert await service.stop() == 0


@on_postgresql
async def test_sighup_under_load_answers_nothing_but_200(tmp_path: Path) -> None:
    async with two_workers(tmp_path, RINGBACK_API_KEY=API_KEY) as service:
        await service.begin(2)
        async with load(f"{service.url}/api/v1/tasks", **{"x-api-key": API_KEY}) as answers:
            service.process.send_signal(signal.SIGHUP)
            await service.logged(RENEWED)
        assert set(answers) == {200}
        assert len(set(service.pids)) == 4
        assert await service.stop() == 0


@on_postgresql
async def test_a_schema_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    async with two_workers(tmp_path, migrated=False) as service:
        said = (await service.process.communicate())[1].decode()
        assert service.process.returncode == Status.UNREACHABLE
        assert (said.count("\n"), said.count("ringback migrate")) == (1, 1)


@pytest.mark.sqlite_only("a refusal of it")
async def test_sqlite_serves_one_process_and_that_is_said(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as service:
        said = (await service.process.communicate())[1].decode()
        assert service.process.returncode == Status.UNREACHABLE
        assert "RINGBACK_DATABASE_URL" in said
