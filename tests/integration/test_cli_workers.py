"""`serve --workers N`: one process keeps N others, which share its socket; it leaves none behind."""

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from receiver.serving.workers import pause_after
from tests.fakes.standin import BROKEN_STATUS
from tests.fakes.workforce import AGAIN, ENDED, NOT_RENEWED, READY, RENEWED, Service, kept, load

pytestmark = pytest.mark.no_database("a small stand-in serves")


def standing_in(folder: Path, *, workers: int = 2, grace: float = 60.0) -> AbstractAsyncContextManager[Service]:
    """Keep so many stand-ins, in `folder`; each has `grace` seconds to stop."""
    return kept(folder, "tests.fakes.standin", "keep", str(workers), str(grace))


async def test_every_worker_answers_on_the_one_socket_and_their_counters_add_up(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as service:
        await service.begin(2)
        for pid in service.pids:
            with service.only(pid):
                assert await service.get("/pid") == pid
        assert await service.metric("ringback_inbound_refused_total") == 2
        assert await service.stop() == 0


async def test_a_worker_that_is_killed_comes_back_and_what_it_counted_stays(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as service:
        await service.begin(2)
        killed, left = service.pids
        with service.only(killed):
            await service.get("/pid")
        waiting = await service.under_way("/wait")
        os.kill(killed, signal.SIGKILL)
        ended = await service.logged(ENDED)
        assert (ended["pid"], ended["status"]) == (killed, -signal.SIGKILL)
        await service.logged(READY)
        service.pids.remove(killed)
        came = service.pids[-1]
        with service.only(came):
            assert await service.get("/pid") == came
            assert await service.metric("ringback_inbound_refused_total") == 2
            assert await service.metric("ringback_streams_open") == 1  # the one who is there, at the one that is left
        assert await service.stop() == 0
        assert await waiting[1] == left
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_stop_finishes_what_every_worker_has_under_way(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as service:
        await service.begin(2)
        asking = await service.under_way("/wait")
        assert await service.stop() == 0
        assert await asyncio.gather(*asking) == service.pids


async def test_workers_end_when_the_process_that_keeps_them_is_killed(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as service:
        await service.begin(2)
        asking = await service.under_way("/wait")
        assert await service.stop(signal.SIGKILL) == -signal.SIGKILL
        assert await asyncio.gather(*asking) == service.pids


async def test_sighup_replaces_every_worker_and_refuses_no_request(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as service:
        await service.begin(2)
        async with load(f"{service.url}/pid") as answers:
            service.process.send_signal(signal.SIGHUP)
            await service.logged(RENEWED)
        assert set(answers) == {200}
        assert len(set(service.pids)) == 4
        first = service.pids.pop(0), service.pids.pop(0)
        for pid in first:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert await service.stop() == 0


async def test_a_worker_that_cannot_start_stops_them_all_with_its_status(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    async with standing_in(tmp_path) as service:
        await service.silence()
        assert await service.process.wait() == BROKEN_STATUS


async def test_once_they_served_one_that_cannot_start_is_tried_again_and_the_others_stay(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as service:
        await service.begin(2)
        before = set(service.pids)
        (tmp_path / "broken").touch()
        service.process.send_signal(signal.SIGHUP)
        await service.logged(NOT_RENEWED)
        assert await service.get("/pid") in before
        os.kill(service.pids[0], signal.SIGKILL)
        pauses = [(await service.logged(AGAIN))["seconds"] for _ in range(3)]
        assert pauses == [pause_after(deaths) for deaths in (1, 2, 3)]
        assert await service.get("/pid") == service.pids[1]
        (tmp_path / "broken").unlink()
        await service.logged(READY)
        assert await service.stop() == 0


async def test_a_worker_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    async with standing_in(tmp_path, workers=1, grace=0.5) as service:
        await service.begin(1)
        hanging = await service.under_way("/hang")
        assert await service.stop() == 128 + signal.SIGKILL
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_second_interrupt_waits_for_nothing(tmp_path: Path) -> None:
    async with standing_in(tmp_path, workers=1) as service:
        await service.begin(1)
        waiting = await service.under_way("/wait")
        hanging = await service.under_way("/hang")
        service.process.send_signal(signal.SIGINT)
        await asyncio.gather(*waiting)
        assert await service.stop(signal.SIGINT) == 0
        await asyncio.gather(*hanging, return_exceptions=True)


def test_pauses_grow_to_a_bound_while_workers_die_quickly() -> None:
    pauses = [pause_after(deaths) for deaths in range(20)]
    assert pauses[:4] == [0.0, 0.1, 0.2, 0.4]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pauses[-2] == 30.0
