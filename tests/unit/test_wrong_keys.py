"""Wrong API keys: which are looked up, how they are refused, and that keys that exist are never slowed."""

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any, cast

import pytest
from sqlalchemy import Executable
from structlog.testing import capture_logs

from receiver.api import live_keys, wrong_keys
from receiver.api.wrong_keys import WrongKeys
from receiver.errors import NotAuthenticated, RateLimited, StorageUnavailable
from receiver.storage.database import Database

HOME, OTHER = "192.0.2.1", "192.0.2.2"


class Keys:
    """A database that has these live keys and counts how often they are read; `is_away`: it does not answer."""

    def __init__(self) -> None:
        self.hashes = {"right"}
        self.reads = 0
        self.is_away = False

    async def read(self, _statement: Executable) -> list[dict[str, Any]]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise StorageUnavailable("away")
        return [{"hash": hashed} for hashed in self.hashes]


class Front:
    """The check before the look-up, on a clock that a test moves (in seconds)."""

    def __init__(self, tries: float = 20, seconds: float = 60) -> None:
        self.now = 5000.0
        self.keys = Keys()
        self.lookups = 0
        self.checked = WrongKeys(cast(Database, self.keys), tries, seconds, lambda: self.now)
        self._numbers = iter(range(10**9))

    async def send(self, hashed: str | None = None, host: str = HOME) -> int:
        """Send a key, a new wrong one by default; return the status of the answer."""
        hashed = hashed or f"wrong {next(self._numbers)}"
        if await self.checked.may_exist(hashed, host):
            self.lookups += 1
            if hashed in self.keys.hashes:
                return 200
            self.checked.found_none(hashed)
        return self.checked.refusal(host).status

    async def slow(self, host: str = HOME) -> None:
        """Send wrong keys until their address is slowed."""
        while await self.send(host=host) != 429:
            pass
        self.lookups = self.keys.reads = 0

    def refused(self, host: str = HOME) -> int | None:
        """Refuse a wrong key; return its `Retry-After`, None for a 401."""
        error = self.checked.refusal(host)
        assert isinstance(error, RateLimited | NotAuthenticated)
        return error.retry_after


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def test_after_20_wrong_keys_in_a_minute_the_wait_grows_to_a_minute() -> None:
    front = Front()
    assert [front.refused() for _ in range(20)] == [None] * 20
    waits = [front.refused() for _ in range(60)]
    assert waits[:3] == [6, 9, 12]
    assert waits[18:] == [60] * 42
    assert front.refused(OTHER) is None


def test_who_waits_as_long_as_it_is_told_is_not_slowed() -> None:
    front = Front()
    for sent in (25, 30, 100):
        waits = [front.refused() for _ in range(sent)]
        assert waits[-1] is not None
        front.now += waits[-1]
        assert front.refused() is None


def test_a_client_that_stops_may_try_again() -> None:
    front = Front()
    for _ in range(1000):
        front.refused()
    front.now += 120
    assert [front.refused() for _ in range(20)] == [None] * 20


def test_one_wrong_key_every_few_seconds_is_never_slowed() -> None:
    front = Front()
    for _ in range(500):
        assert front.refused() is None
        front.now += 3


async def test_a_slowed_client_s_wrong_keys_are_not_looked_up_and_its_right_ones_work() -> None:
    front = Front()
    await front.slow()
    for _ in range(10):
        statuses = [await front.send() for _ in range(100)]
        assert set(statuses) == {429}
        assert await front.send("right") == 200
        front.now += 1
    assert front.lookups == 10, "the right key, each time"
    assert front.keys.reads <= 11, "all keys, once a second"


async def test_a_key_that_another_process_created_works_for_a_slowed_client_within_two_seconds() -> None:
    front = Front()
    await front.slow()
    assert await front.send("new") == 429
    front.keys.hashes.add("new")
    front.now += 2
    assert await front.send("new") == 200


async def test_a_key_that_this_process_created_works_at_once_though_it_was_tried_before() -> None:
    front = Front()
    assert await front.send("early") == 401
    await front.slow()
    for key in ("early", "new"):
        assert await front.send(key) == 429
        front.keys.hashes.add(key)
        front.checked.created(key)
        assert await front.send(key) == 200
    for _ in range(5):
        front.now += 0.5
        assert await front.send("new") == 200


async def test_a_wrong_key_that_is_repeated_is_looked_up_once_a_second() -> None:
    front = Front()
    for _ in range(15):
        assert await front.send("wrong") == 401
    assert front.lookups == 1
    front.keys.hashes.add("wrong")
    front.now += 1
    assert await front.send("wrong") == 200


async def test_wrong_keys_from_many_addresses_are_not_slowed_and_few_are_looked_up() -> None:
    front = Front()
    for second in range(5):
        for number in range(1000):
            assert await front.send(host=f"198.51.{second}.{number % 250}") == 401
        assert await front.send("right") == 200
        front.now += 1
    assert front.lookups + front.keys.reads <= 5 * (50 + 2)


@pytest.mark.parametrize("reason", ["many keys", "database away"])
async def test_when_the_live_keys_are_not_known_a_slowed_client_has_one_look_up_a_second(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = Front()
    front.keys.is_away = reason == "database away"
    if reason == "many keys":
        monkeypatch.setattr(live_keys, "MOST_KEYS", 0)
    await front.slow()
    front.now += 1
    for _ in range(5):
        assert {await front.send() for _ in range(100)} == {429}
        front.now += 1
    assert front.lookups == 5
    assert front.keys.reads <= 6
    assert await front.send("right") == 200


async def test_requests_at_once_read_the_live_keys_once() -> None:
    front = Front()
    await front.slow()
    front.now += 5
    statuses = await asyncio.gather(*(front.send("right" if number % 2 else None) for number in range(100)))
    assert sorted(statuses) == [200] * 50 + [429] * 50
    assert front.keys.reads == 1


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MOST_NETWORKS", "_MOST_UNKNOWN"):
        monkeypatch.setattr(wrong_keys, name, 10)

    front = Front()
    for number in range(1000):
        front.now += 0.1
        await front.send(host=f"198.51.{number // 250}.{number % 250}")
    assert (len(front.checked._paid_at), len(front.checked._unknown)) == (10, 10)


async def test_a_log_line_a_minute_names_the_address_and_counts_its_wrong_keys(
    logged: list[MutableMapping[str, Any]],
) -> None:
    front = Front()
    for _ in range(122):
        for _ in range(20):
            await front.send()
        front.now += 1
    assert [(line["log_level"], line["address"]) for line in logged] == [("warning", HOME)] * 3
    assert logged[0]["wrong_keys"] == 1
    assert sum(line["wrong_keys"] for line in logged[1:]) == 120 * 20
