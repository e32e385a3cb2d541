"""Several `ringback serve` side by side on one PostgreSQL, and before them a balancer, as a reverse proxy is one."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox import SandboxOptions
from tests.fakes.ports import free_port
from tests.fakes.servers import served
from tests.fakes.short_leases import SHORT_TIMEOUTS
from tests.fakes.world import QUICK, ProcessWorld, World, in_processes

_METHODS = ["GET", "POST", "PATCH", "DELETE"]
_OF_THE_CONNECTION = {"connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding"}
_PATIENCE_SECONDS = 40.0


@dataclass(frozen=True)
class Answer:
    """What a client was told through the balancer; `status` is 502 where no replica answered."""

    path: str
    is_waiting: bool
    """Whether the client had asked to wait."""
    status: int
    retry_after: str | None
    seconds: float


class Balancer:
    """Gives each request to the next replica, and to another if a connection is refused, or closed before the answer.

    The latter only for what may come twice: GET, webhooks, and what has an `Idempotency-Key`.
    """

    def __init__(self, bases: Sequence[str]) -> None:
        self.answers: list[Answer] = []
        self._bases = bases
        self._turns = itertools.count()
        no_limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(timeout=_PATIENCE_SECONDS, limits=no_limits, trust_env=False)

    def app(self) -> Starlette:
        """Return the server's application."""
        return Starlette(routes=[Route("/{path:path}", self._take, methods=_METHODS)])

    async def aclose(self) -> None:
        """Close what it has open to the replicas."""
        await self._client.aclose()

    async def _take(self, request: Request) -> Response:
        began = time.monotonic()
        response = await self._pass_on(request, await request.body())
        answer = Answer(
            request.url.path,
            "wait_for_completion" in request.query_params,
            response.status_code,
            response.headers.get("retry-after"),
            time.monotonic() - began,
        )
        self.answers.append(answer)
        return response

    async def _pass_on(self, request: Request, body: bytes) -> Response:
        turn = next(self._turns)
        headers = [(name, value) for name, value in request.headers.raw if name.decode() not in _OF_THE_CONNECTION]
        for place in range(len(self._bases)):
            url = f"{self._bases[(turn + place) % len(self._bases)]}{request.url.path}?{request.url.query}"
            try:
                answer = await self._client.request(request.method, url, content=body, headers=headers)
            except httpx.ConnectError:
                continue
            except httpx.TransportError:
                if not _may_come_twice(request):
                    break
                continue
            kept = {name: value for name, value in answer.headers.items() if name not in _OF_THE_CONNECTION}
            return Response(answer.content, answer.status_code, kept)
        return Response("no replica answered", 502)


def _may_come_twice(request: Request) -> bool:
    return request.method == "GET" or request.url.path.startswith("/hooks/") or "idempotency-key" in request.headers


class Replica(ProcessWorld):
    """One `ringback serve` of several; what it is asked itself goes past the balancer."""

    has_short_leases = False

    async def start(self, *, crash: str | None = None) -> None:
        """Start it, and return when it is ready."""
        await super().start(crash=crash or ("shorten_leases" if self.has_short_leases else None))

    async def outlast_leases(self) -> None:
        """Leave leases to run out by themselves: others that live have some."""

    async def becomes(self, status: int, seconds: float = 20) -> None:
        """Wait until `/readyz` answers so. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while (answer := await self.api.get("/readyz")).status_code != status:
                assert answer.status_code in (200, 503), answer.text

    async def made(self, model: str) -> int:
        """Count the tasks of a model that the provider has made."""
        tasks = (await self.provider.get("/sandbox/tasks")).json()["tasks"]
        return sum(task["model"] == model for task in tasks)


class Replicas:
    """All of them. `world` is what a client sees, through the balancer."""

    def __init__(self, world: World, balancer: Balancer, each: Sequence[Replica]) -> None:
        self.world = world
        self.balancer = balancer
        self.each = each

    async def become(self, status: int) -> None:
        """Wait until `/readyz` of each answers so. Raises TimeoutError."""
        await asyncio.gather(*(replica.becomes(status) for replica in self.each))


@asynccontextmanager
async def replicas(
    folder: Path, options: SandboxOptions = QUICK, *, short_leases: bool = True, **settings: Any
) -> AsyncIterator[Replicas]:
    """Run two replicas, and all that a world has besides."""
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
