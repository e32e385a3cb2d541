"""A subscriber that answers at once, or misbehaves: `python -m tests.bench.subscriber PORT`.

As little as HTTP allows, so that what is measured is who sends. `/ok` answers 200, `/fail` 500, `/hang` never. What
it heard is told on the standard output: when it is asked by a line of input, how many `/ok` it heard so far and the
moments of the first and the last.
"""

import asyncio
import sys
import time

import uvloop

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_FAIL = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


class Tally:
    """What was heard at `/ok`."""

    def __init__(self) -> None:
        self.count = 0
        self.first = 0.0
        self.last = 0.0

    def hear(self) -> None:
        """Count one."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.count += 1


class _Peer(asyncio.Protocol):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._end()) is not None:
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            self._answer(request)

    def _end(self) -> int | None:
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return None
        at = self._buffer.lower().find(b"content-length:", 0, head)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)]) if at >= 0 else 0
        return head + 4 + length if len(self._buffer) >= head + 4 + length else None

    def _answer(self, request: bytes) -> None:
        path = request.split(b" ", 2)[1]
        if path == b"/hang":
            return
        if path == b"/ok":
            self._tally.hear()
        self._transport.write(_FAIL if path == b"/fail" else _OK)  # type: ignore[attr-defined]


async def _serve(port: int) -> None:
    tally = Tally()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Peer(tally), "127.0.0.1", port)
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(tally.count, tally.first, tally.last, flush=True)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
