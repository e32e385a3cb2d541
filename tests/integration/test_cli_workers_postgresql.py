"""`ringback serve --workers 2` itself, on PostgreSQL; SQLite refuses several workers."""

import os
import signal
import stat
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from receiver.cli.failure import Status
from tests.fakes import databases
from tests.fakes.supervised import ENDED, READY, REPLACED, SupervisedService, load, supervised

API_KEY = "rb_workers_Wm3xKq8ZvT5rYc7L"
on_postgresql = pytest.mark.postgresql_only("several processes")


def two_workers(
    folder: Path, *, migrated: bool = True, **settings: str
) -> AbstractAsyncContextManager[SupervisedService]:
    """Run `ringback serve` with two workers on the folder's database."""
    environment = databases.present.environment(folder, migrated=migrated)
    serve = ("receiver.cli", "serve", "--port", "0", "--workers", "2")
    return supervised(folder, *serve, RINGBACK_LOG_FORMAT="json", **environment, **settings)


async def check_metrics_of_both(own: Path) -> None:
    """Check that the supervisor's own listener has the metrics of both workers, and knows that they are ready."""
    assert stat.S_IMODE(own.stat().st_mode) == 0o660
    transport = httpx.AsyncHTTPTransport(uds=str(own))
    async with httpx.AsyncClient(base_url="http://metrics", transport=transport) as client:
        metrics = (await client.get("/metrics")).text
        assert 'ringback_inbound_refused_total{provider="piapi"} 2.0' in metrics
        assert all(f'ringback_worker_open_fds{{worker="{number}"}}' in metrics for number in range(2))
        assert 'ringback_build_info{database="postgresql",' in metrics
        assert "process_cpu_seconds_total" not in metrics  # it would be that of one process alone
        assert (await client.get("/readyz")).json() == {"status": "ready"}


@on_postgresql
async def test_both_workers_answer_and_a_killed_one_is_restarted(tmp_path: Path) -> None:
    own = tmp_path / "metrics.sock"
    async with two_workers(tmp_path, RINGBACK_METRICS_ADDRESS=str(own)) as service:
        await service.wait_ready(2)
        key = (tmp_path / "ringback.admin-key").read_text().strip()  # made once, and valid at both
        for pid in service.pids:
            with service.only(pid):
                await service.get("/readyz")
                await service.get("/api/v1/tasks", **{"x-api-key": key})
                async with httpx.AsyncClient(base_url=service.url) as client:
                    assert (await client.post("/hooks/piapi", content=b"{}")).status_code == 401
                    assert (await client.get("/metrics")).status_code == 404
        await check_metrics_of_both(own)
        killed, other = service.pids
        os.kill(killed, signal.SIGKILL)
        assert (await service.logged(ENDED))["status"] == -signal.SIGKILL
        await service.logged(READY)
        service.pids.remove(killed)
        with service.only(service.pids[-1]):
            await service.get("/readyz")
        assert other in service.pids
        assert await service.stop() == 0
    assert not own.exists()


@pytest.mark.long
@on_postgresql
async def test_sighup_under_load_answers_every_request_with_200(tmp_path: Path) -> None:
    async with two_workers(tmp_path, RINGBACK_API_KEY=API_KEY) as service:
        await service.wait_ready(2)
        async with load(f"{service.url}/api/v1/tasks", **{"x-api-key": API_KEY}) as statuses:
            service.process.send_signal(signal.SIGHUP)
            await service.logged(REPLACED)
        assert set(statuses) == {200}
        assert len(set(service.pids)) == 4
        assert await service.stop() == 0


@on_postgresql
async def test_a_missing_schema_is_reported_once(tmp_path: Path) -> None:
    async with two_workers(tmp_path, migrated=False) as service:
        log = (await service.process.communicate())[1].decode()
        assert service.process.returncode == Status.UNREACHABLE
        lines = [line for line in log.splitlines() if "server setting loses data" not in line]
        assert (len(lines), log.count("ringback migrate")) == (1, 1), log


@pytest.mark.sqlite_only("SQLite refuses it")
async def test_several_workers_on_sqlite_are_refused_with_the_reason(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as service:
        log = (await service.process.communicate())[1].decode()
        assert service.process.returncode == Status.UNREACHABLE
        assert "RINGBACK_DATABASE_URL" in log
