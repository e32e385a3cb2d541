"""Liveness, readiness and metrics, without an API key."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.api.services import Services
from receiver.errors import RingbackError
from receiver.telemetry import exposition

_CHECK_SECONDS = 2.0


async def livez(_request: Request) -> Response:
    """Return 200 as long as the process handles requests."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Return 200 if the database can be read and written and the service is not stopping, else 503 with the reason."""
    services: Services = request.app.state.services
    if services.streams.feed.closed:
        return _not_ready("the service is stopping")
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await services.database.check()
    except TimeoutError:
        return _not_ready(f"the database did not answer within {_CHECK_SECONDS:g} s")
    except RingbackError as error:
        return _not_ready(error.message)
    return JSONResponse({"status": "ready"})


async def metrics(_request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(exposition(), media_type=CONTENT_TYPE_LATEST)


def _not_ready(reason: str) -> Response:
    return JSONResponse({"status": "not ready", "reason": reason}, 503, headers={"retry-after": "1"})
