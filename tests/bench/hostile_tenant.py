"""An organization that does all it can to delay others, for some seconds.

`python -m tests.bench.hostile_tenant PORT SECONDS FIRST LAST`; its pending tasks are numbered from FIRST to LAST.
"""

import asyncio
import sys
from collections.abc import Sequence
from itertools import repeat

import uvloop

from tests.bench.databases import API_KEY
from tests.bench.load import closed_loop
from tests.bench.prepared_requests import create_one, read_response, request, task_request, webhooks

KEY = "the-key-of-the-other-organization"
_BIG = 900_000
_REPLAYS = 60
_ENDS_A_SECOND = 100


async def harm(port: int, seconds: float, tasks: range) -> None:
    """Create tasks, complete tasks, start replays, send wrong keys and large bodies, all at once and as fast as it can.

    Its webhooks, which are registered already, make each event a thousand deliveries.
    """
    big = {**task_request(), "input": {"prompt": "a cat " * (_BIG // 6)}}
    loads = [
        (repeat(_theirs(create_one())), 8),
        (repeat(request("GET", "/api/v1/tasks").replace(API_KEY.encode(), b"a-wrong-key")), 4),
        (repeat(_theirs(request("POST", "/api/v1/task", big))), 2),
    ]
    await asyncio.gather(
        *(closed_loop([port], requests, connections=count, seconds=seconds) for requests, count in loads),
        _complete(port, list(webhooks(tasks)), seconds),
        _replay(port),
    )


async def _complete(port: int, requests: Sequence[bytes], seconds: float) -> None:
    """Let the provider report ends, as many a second as a client creates tasks that end at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for report in requests[: int(_ENDS_A_SECOND * seconds)]:
        writer.write(report)
        await asyncio.gather(read_response(reader), asyncio.sleep(1 / _ENDS_A_SECOND))
    writer.close()


async def _replay(port: int) -> None:
    """Start replays of a webhook to a closed port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_theirs(request("GET", "/api/v1/webhooks?limit=1")))
    _, listed = await read_response(reader)
    uid = listed.split(b'"id":"', 1)[1][:36].decode()
    writer.close()
    asked = _theirs(request("POST", f"/api/v1/webhooks/{uid}/replay", {"since": "2026-01-01T00:00:00Z"}))
    await closed_loop([port], repeat(asked, _REPLAYS), connections=2)


def _theirs(of_quiet_one: bytes) -> bytes:
    return of_quiet_one.replace(API_KEY.encode(), KEY.encode(), 1)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    uvloop.run(harm(int(arguments[0]), float(arguments[1]), range(int(arguments[2]), int(arguments[3]) + 1)))
