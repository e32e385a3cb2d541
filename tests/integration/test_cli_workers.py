"""`serve --workers N`: a supervisor keeps N workers running on one listening socket, and leaves none behind."""

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from receiver.serving.slot import restart_delay
from tests.fakes.standin import BROKEN_STATUS
from tests.fakes.supervised import (
    ENDED,
    KILLED,
    NOT_REPLACED,
    READY,
    REPLACED,
    RESTARTING,
    SupervisedService,
    load,
    supervised,
)

pytestmark = pytest.mark.no_database("a small stand-in for the service serves")


def standin(folder: Path, *, workers: int = 2, grace: float = 60.0) -> AbstractAsyncContextManager[SupervisedService]:
    """Supervise stand-ins for the service in `folder`; each has `grace` seconds to stop."""
    return supervised(folder, "tests.fakes.standin", "supervise", str(workers), str(grace))


async def test_every_worker_answers_on_the_shared_socket_and_their_counters_add_up(tmp_path: Path) -> None:
    async with standin(tmp_path) as service:
        await service.wait_ready(2)
        for pid in service.pids:
            with service.only(pid):
                assert await service.get("/pid") == pid
        assert await service.metric("ringback_inbound_refused_total") == 2
        assert await service.stop() == 0


async def test_a_killed_worker_is_restarted_and_its_counters_stay(tmp_path: Path) -> None:
    async with standin(tmp_path) as service:
        await service.wait_ready(2)
        killed, other = service.pids
        with service.only(killed):
            await service.get("/pid")
        waiting = await service.in_progress("/wait")
        os.kill(killed, signal.SIGKILL)
        ended = await service.logged(ENDED)
        assert (ended["pid"], ended["status"]) == (killed, -signal.SIGKILL)
        await service.logged(READY)
        service.pids.remove(killed)
        restarted = service.pids[-1]
        with service.only(restarted):
            assert await service.get("/pid") == restarted
            assert await service.metric("ringback_inbound_refused_total") == 2
            assert await service.metric("ringback_streams_open") == 1  # the other worker's
        assert await service.stop() == 0
        assert await waiting[1] == other
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_stop_finishes_the_requests_in_progress_at_every_worker(tmp_path: Path) -> None:
    async with standin(tmp_path) as service:
        await service.wait_ready(2)
        requests = await service.in_progress("/wait")
        assert await service.stop() == 0
        assert await asyncio.gather(*requests) == service.pids


async def test_workers_stop_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async with standin(tmp_path) as service:
        await service.wait_ready(2)
        requests = await service.in_progress("/wait")
        assert await service.stop(signal.SIGKILL) == -signal.SIGKILL
        assert await asyncio.gather(*requests) == service.pids


async def test_sighup_replaces_every_worker_and_refuses_no_request(tmp_path: Path) -> None:
    async with standin(tmp_path) as service:
        await service.wait_ready(2)
        async with load(f"{service.url}/pid") as statuses:
            service.process.send_signal(signal.SIGHUP)
            await service.logged(REPLACED)
        assert set(statuses) == {200}
        assert len(set(service.pids)) == 4
        first = service.pids.pop(0), service.pids.pop(0)
        for pid in first:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert await service.stop() == 0


async def test_a_first_worker_that_cannot_start_ends_the_service_with_its_status(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    async with standin(tmp_path) as service:
        await service.wait_ended()
        assert await service.process.wait() == BROKEN_STATUS


async def test_after_a_good_start_a_worker_that_cannot_start_is_retried_and_the_others_stay(tmp_path: Path) -> None:
    async with standin(tmp_path) as service:
        await service.wait_ready(2)
        before = set(service.pids)
        (tmp_path / "broken").touch()
        service.process.send_signal(signal.SIGHUP)
        await service.logged(NOT_REPLACED)
        assert await service.get("/pid") in before
        os.kill(service.pids[0], signal.SIGKILL)
        delays = [(await service.logged(RESTARTING))["delay_seconds"] for _ in range(3)]
        assert delays == [restart_delay(quick_ends) for quick_ends in (1, 2, 3)]
        assert await service.get("/pid") == service.pids[1]
        (tmp_path / "broken").unlink()
        await service.logged(READY)
        assert await service.stop() == 0


async def test_a_worker_that_exceeds_its_grace_period_is_killed(tmp_path: Path) -> None:
    async with standin(tmp_path, workers=1, grace=0.5) as service:
        await service.wait_ready(1)
        hanging = await service.in_progress("/hang")
        service.process.send_signal(signal.SIGTERM)
        assert (await service.logged(KILLED))["pid"] == service.pids[0]
        await service.wait_ended()
        assert await service.process.wait() == 128 + signal.SIGKILL
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_second_interrupt_does_not_wait_for_requests(tmp_path: Path) -> None:
    async with standin(tmp_path, workers=1) as service:
        await service.wait_ready(1)
        waiting = await service.in_progress("/wait")
        hanging = await service.in_progress("/hang")
        service.process.send_signal(signal.SIGINT)
        await asyncio.gather(*waiting)
        assert await service.stop(signal.SIGINT) == 0
        await asyncio.gather(*hanging, return_exceptions=True)


def test_restart_delays_grow_to_a_bound_while_workers_end_quickly() -> None:
    delays = [restart_delay(quick_ends) for quick_ends in range(20)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == delays[-2] == 30.0
