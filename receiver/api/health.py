"""Liveness, readiness and metrics, without an API key.

They are on the public listener, and on one of their own where `RINGBACK_METRICS_ADDRESS` names one
(`receiver.serving.metrics_listener`): then `/metrics` is there alone. Asking costs little however often it is done:
readiness and metrics are remembered for `REMEMBERED_SECONDS`.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.errors import RingbackError
from receiver.remembered import Remembered
from receiver.telemetry.log import get_logger

REMEMBERED_SECONDS = 1.0
_CHECK_SECONDS = 2.0
STOPPING = "the service is stopping"

log = get_logger("api.health")


class Checked(Protocol):
    """What can be ready: the database."""

    async def check(self) -> None:
        """Return if it can be read and written. Raises `RingbackError`."""
        ...


class Readiness:
    """Whether the service can do its work: the database can be read and written, and the service is not stopping."""

    def __init__(self, database: Checked, is_stopping: Callable[[], bool]) -> None:
        self._database = database
        self._is_stopping = is_stopping
        self._last: str | None = None
        self._remembered = Remembered(self._check, REMEMBERED_SECONDS)

    async def fault(self) -> str | None:
        """Return why the service is not ready, in plain words; None if it is."""
        return STOPPING if self._is_stopping() else await self._remembered.get()

    async def _check(self) -> str | None:
        fault, words = None, ""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._database.check()
        except TimeoutError:
            fault = words = f"the database did not answer within {_CHECK_SECONDS:g} s"
        except RingbackError as error:
            fault, words = error.message, str(error)
        except Exception as error:
            fault = words = "the database cannot be checked"
            log.error("readiness check failed", exc_info=error)
        if words != self._last and words:
            log.warning("not ready", error=words)
        self._last = words
        return fault


class Health:
    """The endpoints. `fault` says why the service is not ready, or None; `exposition` returns the metrics.

    With a `token`, the metrics are for those who send it: `Authorization: Bearer <token>`.
    """

    def __init__(
        self, fault: Callable[[], Awaitable[str | None]], exposition: Callable[[], bytes], token: str | None
    ) -> None:
        self._fault = fault
        self._authorization = None if token is None else f"Bearer {token}".encode()
        self._exposition = Remembered(lambda: asyncio.to_thread(exposition), REMEMBERED_SECONDS)

    async def readyz(self, _request: Request) -> Response:
        """Return 200 if the service is ready, else 503 with the reason."""
        fault = await self._fault()
        if fault is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": fault}, 503, headers={"retry-after": "1"})

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in Prometheus' text format."""
        if self._authorization is not None:
            given = request.headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, self._authorization):
                reason = {"status": "refused", "reason": "send the metrics' token (RINGBACK_METRICS_TOKEN)"}
                return JSONResponse(reason, 401, headers={"www-authenticate": "Bearer"})
        return Response(await self._exposition.get(), media_type=CONTENT_TYPE_LATEST)


async def livez(_request: Request) -> Response:
    """Return 200 as long as the process handles requests. It depends on nothing."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Return 200 if the database can be used and no stop was requested, else 503 with the reason."""
    health: Health = request.app.state.health
    return await health.readyz(request)


async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text form."""
    health: Health = request.app.state.health
    return await health.metrics(request)
