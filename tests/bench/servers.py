"""The servers that are compared, each in a process of its own: `python -m tests.bench.servers KIND FOLDER PORT`.

`ringback` is the product itself; `limit` is the same route, which verifies and parses and stores nothing; `plain`
is how one would write it by hand: one SQLModel transaction a request.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import event
from sqlmodel import Session, create_engine, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from models import Event, Task
from receiver.app import create_app
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.domain.transitions import Looks
from receiver.inbound.receive import Hooks
from receiver.providers import Budget, PiAPI
from receiver.settings import Settings
from receiver.storage.sqlite import configure
from receiver.telemetry import configure_logging
from receiver.tracking.apply import Applied
from tests.bench.material import KEYS, settings_for


class _NoWriter:
    """Answers at once, as if it were stored."""

    async def write(self, _handler: Any, _item: Any, *, bounded: bool = True) -> Applied:
        return Applied("", "completed", changed=bounded)


class _NoApplier:
    looks = Looks(15, 300, 86400)

    async def apply(self, *_: Any) -> None:
        """Never called."""


def _provider() -> PiAPI:
    return PiAPI(base_url="http://127.0.0.1:9", api_key="none", timeout=5, budget=Budget(10))


def ringback(settings: Settings) -> Starlette:
    """The product."""
    return create_app(settings, KEYS)


def limit(settings: Settings) -> Starlette:
    """The same route with nothing behind it."""
    provider = _provider()
    hooks = Hooks(
        _NoWriter(),  # type: ignore[arg-type]
        _NoApplier(),  # type: ignore[arg-type]
        {provider.name: provider},
        KeyRing(KEYS),
        shared_secrets={},
        max_body_bytes=settings.max_body_bytes,
    )
    return Starlette(routes=[Route("/hooks/{provider}/{task_id}", hooks)])


def plain(settings: Settings) -> Starlette:
    """One SQLModel transaction a request, in Starlette's thread pool, on the same tables and pragmas."""
    provider, keyring = _provider(), KeyRing(KEYS)
    engine = create_engine(f"sqlite:///{settings.sqlite_path}", connect_args={"timeout": 30})
    event.listen(engine, "connect", lambda connection, _record: configure(connection, writes=True))

    def store(task_id: str, body: bytes) -> None:
        update = provider.parse_webhook(body)
        with Session(engine) as session:
            task = session.exec(select(Task).where(Task.uid == task_id)).one()
            task.status, task.output, task.due_at = str(update.status), update.output, None
            task.ended_at = task.updated_at = now = utc_now()
            happened = Event(
                uid=new_id(),
                organization_id=task.organization_id,
                task_id=task.id or 0,
                type="task.completed",
                snapshot={"status": task.status},
                created_at=now,
            )
            session.add_all([task, happened])
            session.commit()

    async def hook(request: Request) -> Response:
        task_id = request.path_params["task_id"]
        if not keyring.verify_hook(task_id, request.headers.get("x-webhook-secret", "")):
            return JSONResponse({"code": 401}, 401)
        # In the loop's own thread: SQLite has one writer, and threads that wait for it are only slower.
        store(task_id, await request.body())
        return JSONResponse({"code": 200, "message": "success"})

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        engine.dispose()

    return Starlette(routes=[Route("/hooks/{provider}/{task_id}", hook, methods=["POST"])], lifespan=lifespan)


KINDS = {"ringback": ringback, "limit": limit, "plain": plain}

if __name__ == "__main__":
    configure_logging()
    kind, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    uvicorn.run(
        KINDS[kind](settings_for(folder)),
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
