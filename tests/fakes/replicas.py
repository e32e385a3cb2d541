"""Several `ringback serve` processes on one PostgreSQL database, behind a load balancer."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox import SandboxOptions
from tests.fakes.described import ANSWERED_BY
from tests.fakes.ports import free_port
from tests.fakes.servers import served
from tests.fakes.short_leases import SHORT_TIMEOUTS
from tests.fakes.world import QUICK, ProcessWorld, World, in_processes

_METHODS = ["GET", "POST", "PATCH", "DELETE"]
_NOT_FORWARDED = {"connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding"}
_TIMEOUT_SECONDS = 40.0
SENT_TWICE = "x-sent-twice"
"""The header of a response to a request that another replica may have received before, and acted on."""


@dataclass(frozen=True)
class Answer:
    """A response that a client received through the balancer; `status` is 502 where no replica answered."""

    path: str
    is_waiting: bool
    """Whether the request was a long poll."""
    status: int
    retry_after: str | None
    seconds: float


class Balancer:
    """Forwards each request to the next replica in turn, and to another one if that fails.

    A refused connection is always retried; one that is closed before the response is retried only for requests that
    may be repeated: GET, webhooks, and requests with an `Idempotency-Key`.
    """

    def __init__(self, bases: Sequence[str]) -> None:
        self.answers: list[Answer] = []
        self._bases = bases
        self._turns = itertools.count()
        no_limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, limits=no_limits, trust_env=False)

    def app(self) -> Starlette:
        """Return the server's application."""
        return Starlette(routes=[Route("/{path:path}", self._handle, methods=_METHODS)])

    async def aclose(self) -> None:
        """Close the connections to the replicas."""
        await self._client.aclose()

    async def _handle(self, request: Request) -> Response:
        began = time.monotonic()
        response = await self._forward(request, await request.body())
        answer = Answer(
            request.url.path,
            "wait_for_completion" in request.query_params,
            response.status_code,
            response.headers.get("retry-after"),
            time.monotonic() - began,
        )
        self.answers.append(answer)
        return response

    async def _forward(self, request: Request, body: bytes) -> Response:
        turn = next(self._turns)
        headers = [(name, value) for name, value in request.headers.raw if name.decode() not in _NOT_FORWARDED]
        sent_before: dict[str, str] = {}
        for offset in range(len(self._bases)):
            url = f"{self._bases[(turn + offset) % len(self._bases)]}{request.url.path}?{request.url.query}"
            try:
                answer = await self._client.request(request.method, url, content=body, headers=headers)
            except httpx.ConnectError:
                continue
            except httpx.TransportError:
                if not _is_repeatable(request):
                    break
                sent_before = {SENT_TWICE: "true"}
                continue
            kept = {name: value for name, value in answer.headers.items() if name not in _NOT_FORWARDED}
            return Response(answer.content, answer.status_code, kept | sent_before)
        return Response("no replica answered", 502, {ANSWERED_BY: "the balancer"})


def _is_repeatable(request: Request) -> bool:
    return request.method == "GET" or request.url.path.startswith("/hooks/") or "idempotency-key" in request.headers


class Replica(ProcessWorld):
    """One of several `ringback serve` processes; its own clients bypass the balancer."""

    has_short_leases = False

    async def start(self, *, crash: str | None = None) -> None:
        """Start it; return when it is ready."""
        points = filter(None, (crash, "shorten_leases" if self.has_short_leases else None))
        await super().start(crash=",".join(points) or None)

    async def outlast_leases(self) -> None:
        """Do nothing: leases run out by themselves, since other replicas that run hold some of them."""

    async def becomes(self, status: int, seconds: float = 20) -> None:
        """Wait until `/readyz` answers with `status`. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                with suppress(httpx.TransportError):  # the service closes a connection that was idle for some seconds
                    if (answer := await self.api.get("/readyz")).status_code == status:
                        return
                    assert answer.status_code in (200, 503), answer.text

    async def made(self, model: str) -> int:
        """Return how many tasks of a model the provider has created."""
        tasks = (await self.provider.get("/sandbox/tasks")).json()["tasks"]
        return sum(task["model"] == model for task in tasks)


class Replicas:
    """All replicas of a service. `world` reaches them as a client does, through the balancer."""

    def __init__(self, world: World, balancer: Balancer, each: Sequence[Replica]) -> None:
        self.world = world
        self.balancer = balancer
        self.each = each

    async def become(self, status: int) -> None:
        """Wait until `/readyz` of each replica answers with `status`. Raises TimeoutError."""
        await asyncio.gather(*(replica.becomes(status) for replica in self.each))


@asynccontextmanager
async def replicas(
    folder: Path, options: SandboxOptions = QUICK, *, short_leases: bool = True, **settings: Any
) -> AsyncIterator[Replicas]:
    """Run two replicas with everything else that a world has; `short_leases` as in `tests.fakes.short_leases`."""
    if short_leases:
        settings = {**SHORT_TIMEOUTS, **settings}
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(in_processes(folder, options, start=False, **settings))
        each = [
            await stack.enter_async_context(_replica(world, name, short_leases=short_leases)) for name in ("one", "two")
        ]
        balancer = Balancer([replica.base for replica in each])
        stack.push_async_callback(balancer.aclose)
        listening = socket.create_server(("127.0.0.1", world.port))
        await stack.enter_async_context(served(balancer.app(), listening))
        await asyncio.gather(*(replica.start() for replica in each))
        yield Replicas(world, balancer, each)


@asynccontextmanager
async def _replica(world: World, name: str, *, short_leases: bool) -> AsyncIterator[Replica]:
    folder = world.folder / name
    folder.mkdir()
    replica = Replica(folder, free_port(), world.environment, world.subscriber)
    replica.has_short_leases = short_leases
    async with replica.api, replica.provider:
        try:
            yield replica
        finally:
            if replica.process is not None:
                await replica.kill()
