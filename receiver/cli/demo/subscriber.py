"""The demo's subscriber, a small server: `POST /standard`, `POST /callback`; `GET /stats`, `GET /book`."""

import time
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.cli.demo.subscriber_log import SubscriberLog


def create_subscriber(log: SubscriberLog) -> Starlette:
    """Return the subscriber as an ASGI app; what it hears stands in `log`."""

    async def standard(request: Request) -> Response:
        return Response(status_code=log.hear(request.headers, await request.body(), time.time()))

    async def callback(request: Request) -> Response:
        return Response(status_code=log.hear_callback(request.headers, await request.body()))

    async def stats(_: Request) -> Response:
        tasks = {told.task_id for told in log.told.values() if told.accepted}
        return _as_json({"counts": log.counts, "tasks_told": len(tasks)})

    async def book(_: Request) -> Response:
        return _as_json(log.book())

    return Starlette(
        routes=[
            Route("/standard", standard, methods=["POST"]),
            Route("/callback", callback, methods=["POST"]),
            Route("/stats", stats),
            Route("/book", book),
        ]
    )


def _as_json(content: Any) -> Response:
    """Return an answer with a JSON body."""
    return Response(orjson.dumps(content), media_type="application/json")
