"""A subscriber: a real server that keeps what it is told, and misbehaves on request."""

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
"""A status, or a whole answer."""


@dataclass(frozen=True)
class Heard:
    """One delivery as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:
        """The body."""
        return orjson.loads(self.body)

    @property
    def event_id(self) -> str:
        """The `webhook-id`."""
        return self.headers["webhook-id"]


class Subscriber:
    """Keeps every delivery in `heard`. `answer` decides what each is answered, by its number from 1."""

    def __init__(self) -> None:
        self.base = ""
        self.heard: list[Heard] = []
        self.answer: Callable[[int, Request], Reply | Awaitable[Reply]] = lambda _number, _request: 200
        self.closing = asyncio.Event()
        self._news = asyncio.Condition()
        self._requests = 0

    @property
    def url(self) -> str:
        """The address to register."""
        return f"{self.base}/told"

    @property
    def accepted(self) -> list[Heard]:
        """The deliveries that were answered with a 2xx."""
        return [heard for heard in self.heard if heard.status < 300]

    def of(self, task_id: str) -> list[Heard]:
        """Return what was heard of one task."""
        return [heard for heard in self.heard if task_id.encode() in heard.body]

    async def until(self, enough: Callable[[list[Heard]], Any], seconds: float = 20) -> None:
        """Wait until `enough` says so of what was heard. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: enough(self.heard))

    async def hang(self) -> int:
        """Keep the sender waiting for as long as this server runs: `await` it in an answer."""
        await self.closing.wait()
        return 503

    async def _hear(self, request: Request) -> Response:
        body = await request.body()
        self._requests += 1
        reply = self.answer(self._requests, request)
        if inspect.isawaitable(reply):
            reply = await reply
        response = Response("heard", reply) if isinstance(reply, int) else reply
        async with self._news:
            self.heard.append(Heard(request.url.path, dict(request.headers), body, response.status_code))
            self._news.notify_all()
        return response

    def app(self) -> Starlette:
        """Return the server's application."""
        return Starlette(routes=[Route("/{path:path}", self._hear, methods=["POST"])])


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
