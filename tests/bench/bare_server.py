"""A bare server: it answers a webhook and posts it on to the subscriber at once, without a check and without storage.

What it takes from webhook to subscriber is what the machine takes to wake the processes that a webhook passes: no
service can be quicker here. `python -m tests.bench.bare_server SUBSCRIBER_PORT PORT`.
"""

import asyncio
import sys
from collections import deque
from typing import cast

import uvloop

from tests.bench.http_server import http_response, serving
from tests.bench.load import CONNECTIONS
from tests.bench.prepared_requests import task_id_of

_ANSWER, _NO_PATH = http_response(b'{"code":200}'), http_response(status="404 Not Found")
_BODY = b'{"type":"task.completed","data":{"task_id":"%b","padding":"' + b"x" * 900 + b'"}}'
_HEAD = b"POST /ok HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class _Subscriber:
    """The connections to the subscriber, each of which is used again when its response has come."""

    def __init__(self) -> None:
        self.free: deque[asyncio.Transport] = deque()
        self._waiting: deque[bytes] = deque()

    def post(self, request: bytes) -> None:
        """Send a request on a free connection, or as soon as there is one."""
        if self.free:
            self.free.popleft().write(request)
        else:
            self._waiting.append(request)

    def is_free(self, transport: asyncio.Transport) -> None:
        """Use a connection whose response has come."""
        self.free.append(transport)
        if self._waiting:
            self.post(self._waiting.popleft())


class _Connection(asyncio.Protocol):
    def __init__(self, subscriber: _Subscriber) -> None:
        self._subscriber = subscriber

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own
        self._subscriber.is_free(self._transport)

    def data_received(self, _data: bytes) -> None:
        self._subscriber.is_free(self._transport)  # a response is so short that it comes as one


async def serve(subscriber_port: int, port: int) -> None:
    """Serve until the process ends."""
    loop, subscriber = asyncio.get_running_loop(), _Subscriber()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Connection(subscriber), "127.0.0.1", subscriber_port)

    def respond(request: bytes) -> bytes:
        if not request.startswith(b"POST /hooks/"):
            return _NO_PATH
        body = _BODY % task_id_of(request).encode()
        subscriber.post(_HEAD % len(body) + body)
        return _ANSWER

    async with serving(respond, port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
