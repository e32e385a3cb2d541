"""Readiness and metrics are computed at most once in a time, and say no more than they must."""

import asyncio

import pytest
from starlette.requests import Request

from receiver.api import health
from receiver.api.health import Health, Readiness
from receiver.errors import RingbackError, StorageUnavailable
from receiver.remembered import Remembered


class FakeDatabase:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.checks = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def check(self) -> None:
        self.checks += 1
        await self.go_on.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def _remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REMEMBERED_SECONDS", 60.0)


async def test_a_thousand_who_ask_at_once_cause_one_check() -> None:
    database = FakeDatabase()
    database.go_on.clear()
    readiness = Readiness(database, lambda: False)
    asking = [asyncio.create_task(readiness.fault()) for _ in range(1000)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the others get it all the same
    database.go_on.set()
    assert set(await asyncio.gather(*asking[1:])) == {None}
    assert await readiness.fault() is None
    assert database.checks == 1


async def test_a_failed_check_is_remembered_too_and_its_reason_is_in_the_log_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = FakeDatabase(StorageUnavailable("the database cannot be read", reason="host db-7 refused user ringback"))
    readiness = Readiness(database, lambda: False)
    assert [await readiness.fault() for _ in range(3)] == ["the database cannot be read"] * 3
    assert database.checks == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not ready" in line
    assert "db-7" in line


async def test_an_exception_in_the_check_is_a_fault_in_plain_words() -> None:
    fault = await Readiness(FakeDatabase(RuntimeError("SELECT secret")), lambda: False).fault()
    assert fault == "the database cannot be checked"


async def test_a_stop_is_seen_at_once_whatever_is_remembered() -> None:
    is_stopping = False
    readiness = Readiness(FakeDatabase(), lambda: is_stopping)
    assert await readiness.fault() is None
    is_stopping = True
    assert "stopping" in str(await readiness.fault())


async def test_what_is_remembered_is_computed_again_after_its_time() -> None:
    calls = 0

    async def compute() -> int:
        nonlocal calls
        calls += 1
        return calls

    remembered = Remembered(compute, 0.0)
    assert [await remembered.get(), await remembered.get()] == [1, 2]


async def test_it_is_remembered_for_a_multiple_of_the_time_that_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, now = 0, 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

    async def compute() -> int:
        nonlocal calls, now
        calls += 1
        now += 0.5
        return calls

    remembered = Remembered(compute, 0.0, times=10)
    assert await remembered.get() == 1
    now += 4.75
    assert await remembered.get() == 1
    now += 0.5
    assert await remembered.get() == 2


async def test_an_error_is_remembered() -> None:
    calls = 0

    async def compute() -> int:
        nonlocal calls
        calls += 1
        raise RingbackError("no")

    remembered = Remembered(compute, 60.0)
    for _ in range(3):
        with pytest.raises(RingbackError):
            await remembered.get()
    assert calls == 1


@pytest.mark.parametrize(
    ("given", "status"), [(None, 401), (b"Bearer wrong", 401), (b"the-token", 401), (b"Bearer the-token", 200)]
)
async def test_metrics_with_a_token_are_for_those_who_send_it(given: bytes | None, status: int) -> None:
    expositions = 0

    def exposition() -> bytes:
        nonlocal expositions
        expositions += 1
        return b"metrics"

    served = Health(Readiness(FakeDatabase(), lambda: False).fault, exposition, "the-token")
    headers = [] if given is None else [(b"authorization", given)]
    request = Request({"type": "http", "method": "GET", "headers": headers})
    assert [(await served.metrics(request)).status_code for _ in range(3)] == [status] * 3
    assert expositions == (1 if status == 200 else 0)
