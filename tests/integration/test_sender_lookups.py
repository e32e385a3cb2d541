"""Deliveries whose names are looked up: those of one organization are held up by no silent DNS server of another's."""

import asyncio
import socket
from collections import Counter
from pathlib import Path

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from receiver.errors import BadRequest
from receiver.lookups.resolver import NameLookups, looked_up_for, present_organization
from receiver.outbound.guard import AddressGuard
from receiver.outbound.sender import Sender, SendResult
from tests.fakes.dns import DnsServer
from tests.fakes.raw_server import RawServer
from tests.fakes.rows import DELIVERIES, eventually
from tests.fakes.world import in_process

pytestmark = pytest.mark.sqlite_only("the database has no part in it")

HONEST, HOSTILE = 1, 2
SHARE = 8
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class LoopbackNames(AbstractResolver):
    """Finds every name on this machine, and records for which organization it was looked up."""

    def __init__(self, purpose: str) -> None:
        self.asked: list[tuple[str, int | None]] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append((host, present_organization()))
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def send(sender: Sender, organization_id: int, url: str) -> asyncio.Task[SendResult]:
    with looked_up_for(organization_id):
        return asyncio.create_task(sender.send(url, {}, b"{}"))


async def test_a_delivery_goes_through_at_once_while_the_dns_of_another_organization_is_silent() -> None:
    async with DnsServer() as dns, RawServer(OK) as server:
        lookups = NameLookups("subscribers", servers=dns.servers, seconds=60, share=SHARE)
        guard = AddressGuard(allow_private=True, inner=lookups)
        async with Sender(guard, timeout=60) as sender:
            silent = [send(sender, HOSTILE, f"http://silent-{n}.example:{server.port}/") for n in range(5 * SHARE)]
            await dns.silent.wait()
            result = await send(sender, HONEST, f"http://honest.example:{server.port}/")
            assert (result.status, result.error) == (200, None)
            with looked_up_for(HONEST):
                await guard.check("https://honest-too.example/")
            assert not any(sending.done() for sending in silent)
            # What the other organization registers waits for a place in the share that its deliveries use up.
            with looked_up_for(HOSTILE), pytest.raises(TimeoutError):
                await asyncio.wait_for(guard.check("https://honest-third.example/"), 0.2)
            assert not any(name.startswith("honest-third") for name in dns.asked)
            await guard.aclose()
            results = await asyncio.gather(*silent)
        assert {(result.status, result.error) for result in results} == {(None, "name not resolved")}


async def test_a_name_that_failed_at_its_registration_is_not_looked_up_by_the_next_delivery() -> None:
    async with DnsServer() as dns:
        guard = AddressGuard(allow_private=True, inner=NameLookups("subscribers", servers=dns.servers))
        with pytest.raises(BadRequest, match="does not resolve"):
            await guard.check("https://unknown.example/")
        async with Sender(guard, timeout=60) as sender:
            result = await send(sender, HONEST, "http://unknown.example:9/")
            assert (result.status, result.error) == (None, "name not resolved")
        await guard.aclose()
    assert dns.asked == ["unknown.example"]


async def test_every_look_up_of_a_subscriber_counts_as_one_of_its_organization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[LoopbackNames] = []

    def make(purpose: str) -> LoopbackNames:
        made.append(LoopbackNames(purpose))
        return made[-1]

    monkeypatch.setattr("receiver.outbound.guard.NameLookups", make)
    async with in_process(tmp_path) as world:
        port = httpx.URL(world.subscriber.url).port
        webhook = await world.webhook(endpoint_url=f"http://registered.example:{port}/")
        path = f"/api/v1/webhooks/{webhook['id']}"
        changed = await world.api.patch(path, json={"endpoint_url": f"http://changed.example:{port}/"})
        tried = await world.api.post(f"{path}/test")
        assert (changed.status_code, tried.json()["data"]["delivered"]) == (200, True)
        await world.ended(await world.created(config={"webhook_config": {"endpoint": f"http://own.example:{port}/"}}))
        await eventually(world, DELIVERIES, lambda rows: len(rows) > 1 and all(row["settled_at"] for row in rows))
        (names,) = made
        assert {organization for _, organization in names.asked} == {1}
        hosts = Counter(host for host, _ in names.asked)
        assert hosts["registered.example"] == 1  # only checked
        assert min(hosts["changed.example"], hosts["own.example"]) >= 2  # checked, then connected to
