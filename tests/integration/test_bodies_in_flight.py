"""The bytes of request bodies that are held at a time: a body without room waits, and is refused after its time."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.fakes.front_door import FrontDoor, front_door
from tests.fakes.raw_client import RawConnection, raw_connection

pytestmark = pytest.mark.no_database("the server alone")

SIZE = 1_000_000
MOST = 4_000_000
"""Three quarters of it are the API's: room for three bodies, of one owner for one and a half."""


async def posted(
    stack: AsyncExitStack, door: FrontDoor, owner: str, *, size: int = SIZE, path: str = "keep"
) -> RawConnection:
    client = await stack.enter_async_context(raw_connection(door.url))
    head = b"POST /%s?%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), owner.encode(), size)
    client.writer.write(head + bytes(size))
    return client


async def until(door: FrontDoor, bodies: int, *, waiting: bool) -> None:
    async with asyncio.timeout(10):
        while len(door.bodies) < bodies or door.connections.bodies.is_pressed != waiting:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.005)


async def test_a_body_without_room_waits_until_another_request_ends() -> None:
    async with front_door(bodies_in_flight_bytes=MOST) as door, AsyncExitStack() as stack:
        clients = [await posted(stack, door, f"organization-{number}") for number in range(8)]
        await until(door, 3, waiting=True)
        small = await posted(stack, door, "another", size=10_000, path="body")
        assert (await small.answer())[2] == b"10000"  # small ones never wait
        assert door.connections.bodies.api.held <= 3 * MOST // 4 + SIZE
        door.gate.set()
        assert [(await client.answer())[2] for client in clients] == [b"%d" % SIZE] * 8
        await until(door, 9, waiting=False)
        assert door.connections.bodies.api.held == 0


async def test_a_body_that_waits_too_long_gets_503() -> None:
    async with front_door(bodies_in_flight_bytes=MOST, body_seconds=0.3) as door, AsyncExitStack() as stack:
        kept = [await posted(stack, door, f"organization-{number}") for number in range(3)]
        await until(door, 3, waiting=False)
        late = await posted(stack, door, "late")
        assert (await late.answer())[0] == 503
        door.gate.set()
        assert [(await client.answer())[0] for client in kept] == [200] * 3


async def test_one_owner_leaves_room_for_another_and_the_api_leaves_some_for_inbound_webhooks() -> None:
    async with front_door(bodies_in_flight_bytes=MOST) as door, AsyncExitStack() as stack:
        greedy = [await posted(stack, door, "greedy") for _ in range(6)]
        await until(door, 1, waiting=True)
        other = await posted(stack, door, "other", path="body")
        assert (await other.answer())[0] == 200
        more = [await posted(stack, door, f"organization-{number}") for number in range(4)]
        await until(door, 4, waiting=True)
        inbound = await posted(stack, door, "inbound", size=900_000, path="body")
        assert (await inbound.answer())[0] == 200
        door.gate.set()
        assert [(await client.answer())[0] for client in greedy + more] == [200] * 10


async def test_a_slow_body_is_refused_after_its_time_while_others_wait_for_room() -> None:
    async with (
        front_door(bodies_in_flight_bytes=1_400_000, body_seconds=0.4, least_rate=1) as door,
        AsyncExitStack() as stack,
    ):
        slow = await stack.enter_async_context(raw_connection(door.url))
        slow.writer.write(b"POST /body?slow HTTP/1.1\r\nContent-Length: 1200000\r\n\r\n" + bytes(SIZE))
        async with asyncio.timeout(10):
            while door.connections.bodies.api.held < SIZE - 300_000:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)  # or their own time would be over before the slow one's
        others = [await posted(stack, door, f"organization-{number}", path="body") for number in range(2)]
        assert (await slow.answer())[0] == 408
        assert [(await client.answer())[0] for client in others] == [200, 200]


async def test_a_request_whose_client_is_gone_holds_nothing() -> None:
    async with front_door(bodies_in_flight_bytes=MOST) as door, AsyncExitStack() as stack:
        client = await stack.enter_async_context(raw_connection(door.url))
        client.writer.write(b"POST /body?a HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000))
        async with asyncio.timeout(10):
            while not door.connections.bodies.api.held:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.005)
        client.writer.transport.abort()
        assert await door.disconnects.get() == "client_gone"
        await asyncio.sleep(0)
        await until(door, 0, waiting=False)
        assert door.connections.bodies.api.held == 0
