"""Is it alive, is it ready, what does it count. No key is asked for."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.api.services import Services
from receiver.errors import RingbackError
from receiver.telemetry import exposition

_PATIENCE_SECONDS = 2.0


async def livez(_request: Request) -> Response:
    """Answer as long as the process does."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Answer 200 if the database can be read and written to and no stop was asked for, else 503 with the reason."""
    services: Services = request.app.state.services
    if services.streams.feed.closed:
        return _not_ready("the service is stopping")
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await services.database.check()
    except TimeoutError:
        return _not_ready(f"the database did not answer within {_PATIENCE_SECONDS:g} s")
    except RingbackError as error:
        return _not_ready(error.message)
    return JSONResponse({"status": "ready"})


async def metrics(_request: Request) -> Response:
    """Return the counters in Prometheus' text form."""
    return Response(exposition(), media_type=CONTENT_TYPE_LATEST)


def _not_ready(reason: str) -> Response:
    return JSONResponse({"status": "not ready", "reason": reason}, 503, headers={"retry-after": "1"})
