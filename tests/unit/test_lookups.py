"""Look-ups of names: bounded in time and number, and none of one organization holds up those of another."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from receiver.lookups import queries, resolver
from receiver.lookups.queries import NameAddresses, NameNotResolved, NoSuchName, Queries
from receiver.lookups.resolver import NameLookups, looked_up_for
from tests.fakes.dns import DnsServer

FOUND: NameAddresses = [(socket.AF_INET, "127.0.0.1")]
HONEST, HOSTILE = 1, 2
SHORT = 0.1
LONG = 60.0


class Names:
    """Queries whose names are answered when their gates are opened; those of `failing` fail."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.changed = asyncio.Condition()
        self.failing: dict[str, NameNotResolved] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.under_way = 0

    async def addresses(self, host: str, family: int = socket.AF_UNSPEC) -> NameAddresses:
        self.asked[host] += 1
        async with self.changed:
            self.changed.notify_all()
        self.under_way += 1
        try:
            if host in self.gates:
                await self.gates[host].wait()
        finally:
            self.under_way -= 1
        if host in self.failing:
            raise self.failing[host]
        return FOUND

    async def aclose(self) -> None:
        pass

    def close_gates(self, *hosts: str) -> None:
        """Keep the queries for these names waiting."""
        self.gates |= {host: asyncio.Event() for host in hosts}


@asynccontextmanager
async def lookups(names: Names, *, seconds: float = LONG, most: int = 10, share: int = 5) -> AsyncIterator[NameLookups]:
    made = NameLookups("subscribers", queries=names, seconds=seconds, most=most, share=share)
    try:
        yield made
    finally:
        await made.close()


def begin(made: NameLookups, organization_id: int, *hosts: str) -> list[asyncio.Task[list[object]]]:
    async def resolve(host: str) -> list[object]:
        return list(await made.resolve(host, 443))

    with looked_up_for(organization_id):
        return [asyncio.create_task(resolve(host)) for host in hosts]


async def until_asked(names: Names, count: int) -> None:
    async with asyncio.timeout(10), names.changed:
        await names.changed.wait_for(lambda: names.asked.total() >= count)


async def test_silent_names_of_one_organization_hold_up_no_look_up_of_another() -> None:
    names = Names()
    silent = [f"silent-{number}" for number in range(50)]
    names.close_gates(*silent)
    async with lookups(names) as made:
        waiting = begin(made, HOSTILE, *silent)
        await until_asked(names, 5)
        honest = begin(made, HONEST, *(f"honest-{number}" for number in range(20)))
        assert len(await asyncio.gather(*honest)) == 20
        assert names.under_way == 5
        assert not any(task.done() for task in waiting)


async def test_a_look_up_frees_its_place_when_its_time_is_over() -> None:
    names = Names()
    names.close_gates("silent-1", "silent-2")
    async with lookups(names, seconds=SHORT, most=2, share=2) as made:
        for each in await asyncio.gather(*begin(made, HOSTILE, "silent-1", "silent-2"), return_exceptions=True):
            assert isinstance(each, NameNotResolved)
            assert not isinstance(each, TimeoutError)
        assert names.under_way == 0
        assert await begin(made, HOSTILE, "honest")[0]


async def test_a_look_up_that_gets_no_place_says_so_and_its_name_is_looked_up_again() -> None:
    names = Names()
    names.close_gates("silent")
    async with lookups(names, share=1) as made:
        (silent,) = begin(made, HOSTILE, "silent")
        await until_asked(names, 1)
        made._seconds = SHORT  # of the next one: the first keeps the only place
        with pytest.raises(NameNotResolved, match="too many names"):
            await begin(made, HOSTILE, "honest")[0]
        names.gates["silent"].set()
        await silent
        assert await begin(made, HOSTILE, "honest")[0]
    assert names.asked["honest"] == 1


async def test_a_name_is_looked_up_once_for_all_that_ask_at_the_same_time() -> None:
    names = Names()
    names.close_gates("name")
    async with lookups(names) as made:
        waiting = begin(made, HONEST, *["name"] * 20)
        await until_asked(names, 1)
        waiting.pop().cancel()  # takes the answer from none of the others
        names.gates["name"].set()
        assert len(await asyncio.gather(*waiting)) == 19
        assert names.asked["name"] == 1
        await begin(made, HONEST, "name")[0]
        assert names.asked["name"] == 2  # nothing is kept of an answer


async def test_two_organizations_that_ask_for_one_name_do_not_wait_for_each_other() -> None:
    names = Names()
    names.close_gates("silent-1", "silent-2")
    async with lookups(names, share=2) as made:
        begin(made, HOSTILE, "silent-1", "silent-2", "name")
        await until_asked(names, 2)
        assert await begin(made, HONEST, "name")[0]


@pytest.mark.parametrize("error", [NoSuchName("none"), NameNotResolved("no answer")])
async def test_a_name_that_failed_is_not_looked_up_again_for_some_seconds(
    error: NameNotResolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, now = Names(), [1000.0]
    names.failing["name"] = error
    monkeypatch.setattr("receiver.lookups.resolver.monotonic", lambda: now[0])
    pauses = []
    async with lookups(names) as made:
        for asked in range(1, 7):
            for _ in range(2):
                with pytest.raises(NameNotResolved, match=str(error)):
                    await begin(made, HONEST, "name")[0]
            assert names.asked["name"] == asked
            pauses.append(made._failures["name"].pause)
            now[0] += pauses[-1]
        names.failing.clear()
        assert await begin(made, HONEST, "name")[0]
        assert await begin(made, HONEST, "name")[0]
    assert pauses == ([5.0] * 6 if isinstance(error, NoSuchName) else [5.0, 10.0, 20.0, 40.0, 40.0, 40.0])


async def test_what_is_remembered_of_failures_and_organizations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_MOST_FAILURES", 3)
    names = Names()
    hosts = [f"name-{number}" for number in range(10)]
    names.failing = dict.fromkeys(hosts, NoSuchName("none"))
    async with lookups(names) as made:
        for number, host in enumerate(hosts):
            await asyncio.gather(*begin(made, number, host), return_exceptions=True)
        assert list(made._failures) == hosts[-3:]
        assert (made._shares, made._under_way) == ({}, {})


async def test_closing_ends_the_look_ups_under_way_with_an_error_of_their_own() -> None:
    names = Names()
    names.close_gates("silent")
    async with lookups(names) as made:
        waiting = begin(made, HONEST, "silent")
        await until_asked(names, 1)
        await made.close()
        with pytest.raises(NameNotResolved, match="stops"):
            await waiting[0]


async def test_dns_servers_are_asked_and_silent_ones_hold_up_no_other_name() -> None:
    async with DnsServer() as server:
        asked = NameLookups("subscribers", servers=server.servers, seconds=LONG)
        try:
            silent = begin(asked, HOSTILE, *(f"silent-{number}.example" for number in range(100)))
            await server.silent.wait()
            [found] = await begin(asked, HONEST, "honest.example")[0]
            assert found == {
                "hostname": "honest.example",
                "host": "127.0.0.1",
                "port": 443,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            assert not any(task.done() for task in silent)
        finally:
            await asked.close()
        await asyncio.wait(silent)


@pytest.mark.parametrize(
    ("host", "error", "reason"),
    [
        ("unknown.example", NoSuchName, "no address"),
        ("empty.example", NoSuchName, "no address"),
        ("broken.example", NameNotResolved, "do not answer"),
        ("many.example", NameNotResolved, "more than 64 addresses"),
        ("x" * 64 + ".example", NoSuchName, "no address"),
        ("a..example", NoSuchName, "no address"),
    ],
)
async def test_what_dns_servers_say_of_a_name_is_told_apart(host: str, error: type[Exception], reason: str) -> None:
    async with DnsServer() as server:
        asked = Queries(server.servers)
        with pytest.raises(error, match=reason) as caught:
            await asked.addresses(host)
        assert type(caught.value) is error
        await asked.aclose()


async def test_an_answer_is_kept_no_longer_than_a_channel_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_CHANNEL_QUERIES", 2)
    async with DnsServer() as server:
        asked = Queries(server.servers)
        for _ in range(6):
            assert await asked.addresses("name.example") == FOUND
        await asked.aclose()
    assert server.asked == ["name.example"] * 3


async def test_names_of_this_machine_need_no_dns_server() -> None:
    asked = Queries(["127.0.0.1:9"])
    found = await asked.addresses("localhost")
    assert set(found) <= {(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")}
    assert (socket.AF_INET, "127.0.0.1") in found
    assert await asked.addresses("localhost", socket.AF_INET) == FOUND
    await asked.aclose()


async def test_addresses_without_a_route_come_last() -> None:
    ipv6, ipv4 = (socket.AF_INET6, "2001:4860::1"), (socket.AF_INET, "192.0.2.1")
    # No process of the tests has a route to it: see `tests.fakes.loopback`.
    assert queries._in_order([ipv6, ipv4]) == [ipv4, ipv6]
    assert queries._in_order([ipv6]) == [ipv6]
