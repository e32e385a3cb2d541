"""A subscriber: a real server that records the deliveries that it receives, and misbehaves on request."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fakes.servers import served

Reply = int | Response
"""A status code or a whole response."""


@dataclass(frozen=True)
class ReceivedDelivery:
    """One request that delivered an event, and the status that it was answered with."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)

    @property
    def event_id(self) -> str:
        """The event's id, from the `webhook-id` header."""
        return self.headers["webhook-id"]


class Subscriber:
    """Records every delivery in `received`. `answer` returns the reply to each, given its number from 1."""

    def __init__(self) -> None:
        self.base = ""
        self.received: list[ReceivedDelivery] = []
        self.answer: Callable[[int, Request], Reply | Awaitable[Reply]] = lambda _number, _request: 200
        self.closing = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._requests = 0

    @property
    def url(self) -> str:
        """The URL to register."""
        return f"{self.base}/told"

    @property
    def accepted(self) -> list[ReceivedDelivery]:
        """The deliveries that were answered with a 2xx."""
        return [received for received in self.received if received.status < 300]

    def of(self, task_id: str) -> list[ReceivedDelivery]:
        """Return the deliveries about one task."""
        return [received for received in self.received if task_id.encode() in received.body]

    async def until(self, enough: Callable[[list[ReceivedDelivery]], Any], seconds: float = 20) -> None:
        """Wait until `enough` holds for the deliveries received. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: enough(self.received))

    async def hang(self) -> int:
        """Wait until this server closes, then return 503. An `answer` that awaits it keeps its sender waiting."""
        await self.closing.wait()
        return 503

    async def _receive(self, request: Request) -> Response:
        body = await request.body()
        self._requests += 1
        reply = self.answer(self._requests, request)
        if inspect.isawaitable(reply):
            reply = await reply
        response = Response("heard", reply) if isinstance(reply, int) else reply
        async with self._arrived:
            self.received.append(ReceivedDelivery(request.url.path, dict(request.headers), body, response.status_code))
            self._arrived.notify_all()
        return response

    def app(self) -> Starlette:
        """Return the server's application."""
        return Starlette(routes=[Route("/{path:path}", self._receive, methods=["POST"])])


@asynccontextmanager
async def listening() -> AsyncIterator[Subscriber]:
    """Run a subscriber."""
    subscriber = Subscriber()
    async with served(subscriber.app()) as base:
        subscriber.base = base
        try:
            yield subscriber
        finally:
            subscriber.closing.set()
