"""Bare aiohttp, 64 POSTs at a time, the baseline for deliveries. `python -m tests.bench.bare_aiohttp URL COUNT`."""

import asyncio
import sys

import aiohttp
import uvloop

_AT_A_TIME = 64
_BODY = '{"type":"task.completed","data":{"task_id":"%036d","padding":"' + "x" * 900 + '"}}'


async def post_all(url: str, count: int) -> None:
    """Post `count` bodies, each for another task; return when all are answered."""
    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_A_TIME)) as session:

        async def post() -> None:
            for number in numbers:
                async with session.post(url, data=_BODY % number) as response:
                    await response.read()

        await asyncio.gather(*(post() for _ in range(_AT_A_TIME)))


if __name__ == "__main__":
    uvloop.run(post_all(sys.argv[1], int(sys.argv[2])))
