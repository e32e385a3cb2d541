"""Servers that Ringback is compared with: `python -m tests.bench.comparison_servers KIND PORT`.

`limit` is the same route, which verifies and parses webhooks but stores nothing. `plain` is the obvious way to write
it: one SQLModel transaction a request. Both run on the same HTTP server, with the same options, as `ringback serve`.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg
import uvicorn
from sqlalchemy import Select, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session, create_engine, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from models import Event, Task
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.domain.schedules import PollSchedule
from receiver.domain.updates import ProviderUpdate
from receiver.events.after_commit import Waiting
from receiver.inbound.probe import ProbeEndpoint
from receiver.inbound.receive import InboundEndpoint
from receiver.providers import Providers
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter
from receiver.serving.connection import ServerConnection
from receiver.serving.master_keys import master_keys
from receiver.serving.server import Server, ServerStop
from receiver.settings import Settings, load_settings
from receiver.stop_bound import StopBound
from receiver.storage.sqlite import configure
from receiver.telemetry.log import configure_logging
from receiver.tracking.apply import Applied

_PATH = "/hooks/{provider}/{task_id}"
Store = Callable[[str, ProviderUpdate], Awaitable[None]]


class _NoWriter:
    """A writer that stores nothing and returns at once, as if the update were stored."""

    async def write(self, _handler: Any, _item: Any, **_: bool) -> Applied:
        return Applied("", "completed", changed=True)


class _NoDatabase:
    """Stands for the database, of which only the writer is used."""

    writer = _NoWriter()


class _NoAccounts:
    """Has no accounts."""

    @property
    def known(self) -> Self:
        return self

    def has_any(self, _provider: str) -> bool:
        """Return False: there is only that of the environment."""
        return False


class _NoApplier:
    poll_schedule = PollSchedule(15, 300, 86400)

    async def apply(self, *_: Any) -> None:
        """Do nothing; the writer above never calls it."""


def limit(settings: Settings) -> Starlette:
    """Return the app with the same route and no storage."""
    provider = _provider()
    keyring = KeyRing(master_keys(settings))
    hooks = InboundEndpoint(
        _NoDatabase(),  # type: ignore[arg-type]
        _NoApplier(),  # type: ignore[arg-type]
        Providers({provider.name: provider}),
        _NoAccounts(),  # type: ignore[arg-type]
        keyring,
        probes=ProbeEndpoint(keyring, Waiting(), max_body_bytes=settings.max_body_bytes),
        shared_secrets={},
        max_body_bytes=settings.max_body_bytes,
    )
    return Starlette(routes=[Route(_PATH, hooks)])


def plain(settings: Settings) -> Starlette:
    """Return the app with one SQLModel transaction a request, on the same tables."""
    provider, keyring = _provider(), KeyRing(master_keys(settings))
    store, close = _on_sqlite(settings) if settings.is_sqlite else _on_postgresql(settings)

    async def hook(request: Request) -> Response:
        task_id = request.path_params["task_id"]
        if not keyring.verify_hook(task_id, request.headers.get("x-webhook-secret", "")):
            return JSONResponse({"code": 401}, 401)
        await store(task_id, provider.parse_webhook(await request.body()))
        return JSONResponse({"code": 200, "message": "success"})

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await close()

    return Starlette(routes=[Route(_PATH, hook, methods=["POST"])], lifespan=lifespan)


def _on_sqlite(settings: Settings) -> tuple[Store, Callable[[], Awaitable[None]]]:
    """Store in the event loop's thread: SQLite has one writer, and threads that wait for it are only slower."""
    engine = create_engine(f"sqlite:///{settings.sqlite_path}", connect_args={"timeout": 30})
    event.listen(engine, "connect", lambda connection, _record: configure(connection, writes=True))

    async def store(task_id: str, update: ProviderUpdate) -> None:
        with Session(engine) as session:
            task = session.exec(_task_with_id(task_id)).one()
            session.add_all([task, _ended(task, update)])
            session.commit()

    async def close() -> None:
        engine.dispose()

    return store, close


def _on_postgresql(settings: Settings) -> tuple[Store, Callable[[], Awaitable[None]]]:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(settings.database_url))

    async def store(task_id: str, update: ProviderUpdate) -> None:
        async with AsyncSession(engine) as session:
            task = (await session.exec(_task_with_id(task_id))).one()
            session.add_all([task, _ended(task, update)])
            await session.commit()

    return store, engine.dispose


def _task_with_id(task_id: str) -> Any:
    statement: Select[Any] = select(Task).where(Task.uid == task_id)
    return statement


def _ended(task: Task, update: ProviderUpdate) -> Event:
    """Set the task to completed; return the event for that."""
    task.status, task.output, task.due_at = str(update.status), update.output, None
    task.ended_at = task.updated_at = now = utc_now()
    return Event(
        uid=new_id(),
        organization_id=task.organization_id,
        task_id=task.id or 0,
        type="task.completed",
        snapshot={"status": task.status},
        created_at=now,
    )


def _provider() -> PiAPI:
    return PiAPI(base_url="http://127.0.0.1:9", api_key="none", timeout=5, rate_limiter=RateLimiter(10))


KINDS = {"limit": limit, "plain": plain}

if __name__ == "__main__":
    configure_logging()
    settings = load_settings(env_file=None)
    config = uvicorn.Config(
        KINDS[sys.argv[1]](settings),
        port=int(sys.argv[2]),
        loop="uvloop",
        http=ServerConnection,
        access_log=False,
        log_level="warning",
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
    )
    Server(config, ServerStop(StopBound())).run(sockets=[config.bind_socket()])
