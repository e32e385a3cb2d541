"""A provider of APIs that make no task, on loopback: it records each request and answers as the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from tests.fakes.servers import served


@dataclass
class ForwardedCall:
    """One request as the provider got it. `parts` are the pieces of the body, as they arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    parts: list[bytes] = field(default_factory=list)
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when Ringback closes the connection before it has the whole answer."""

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class Exchange:
    """What an answer can do: send its headers, and parts of its body."""

    def __init__(self, call: ForwardedCall, send: Send) -> None:
        self.call = call
        self._send = send

    async def begin(self, status: int = 200, **headers: str) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def part(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


Answer = Callable[[Exchange], Awaitable[None]]


def fixed(status: int, body: bytes | Any, content_type: str = "application/json", **headers: str) -> Answer:
    """Return an answer that is sent at once and whole."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)

    async def answer(exchange: Exchange) -> None:
        await exchange.begin(status, content_type=content_type, content_length=str(len(content)), **headers)
        await exchange.end(content)

    return answer


def in_parts(parts: Iterable[bytes], content_type: str = "application/json") -> Answer:
    """Return an answer that is sent in these parts, one after the other."""

    async def answer(exchange: Exchange) -> None:
        await exchange.begin(content_type=content_type)
        for part in parts:
            await exchange.part(part)
            await asyncio.sleep(0.01)  # or the server would join them
        await exchange.end()

    return answer


class ForwardProvider:
    """Answers every request with `answer`; a call is in `calls` as soon as its headers have arrived."""

    def __init__(self) -> None:
        self.answer: Answer = fixed(200, {"ok": True})
        self.calls: list[ForwardedCall] = []
        self.url = ""
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[list[ForwardedCall]], Any]) -> None:
        """Wait until the calls fulfil the condition. Raises TimeoutError."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: condition(self.calls))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        call = ForwardedCall(scope["method"], scope["path"], scope["query_string"].decode(), headers)
        self.calls.append(call)
        await self._notify()
        if await self._read(call, receive):
            await self._answer(call, receive, send)

    async def _read(self, call: ForwardedCall, receive: Receive) -> bool:
        while (message := await receive())["type"] == "http.request":
            call.parts.append(message.get("body", b""))
            await self._notify()
            if not message.get("more_body", False):
                return True
        call.broken.set()
        return False

    async def _answer(self, call: ForwardedCall, receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self.answer(Exchange(call, send)))
        leaving = asyncio.ensure_future(receive())
        done, _ = await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answering not in done:
            call.broken.set()
        answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


@asynccontextmanager
async def forward_provider() -> AsyncIterator[ForwardProvider]:
    """Run the provider on a free port."""
    provider = ForwardProvider()
    async with served(provider) as url:
        provider.url = url
        yield provider
