"""Deliveries whose names are looked up: those of one organization are held up by no silent DNS server of another's."""

import asyncio

import pytest

from receiver.errors import BadRequest
from receiver.lookups.resolver import NameLookups, looked_up_for
from receiver.outbound.guard import AddressGuard
from receiver.outbound.sender import Sender, SendResult
from tests.fakes.dns import DnsServer
from tests.fakes.raw_server import RawServer

pytestmark = pytest.mark.no_database("it sends what it is given")

HONEST, HOSTILE = 1, 2
SHARE = 8
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


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
