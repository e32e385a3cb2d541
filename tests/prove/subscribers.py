"""The subscribers of a campaign: one server with a path for each, which writes down every delivery that it receives."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox.answers import CutConnection
from tests.prove.history import History
from tests.prove.signatures import is_signed

CALLBACK_SECRET = "a-secret-of-the-clients-own"
"""Of the callbacks in the `config` of tasks; PiAPI's form sends it as it is."""
_HANG_SECONDS = 4.0
"""Longer than the service waits for an answer."""
_STATUSES: Mapping[str, int] = {"500": 500, "503": 503, "429": 429, "redirect": 302}


@dataclass
class Endpoint:
    """A path of the server. `faults` are shares of bad answers by name: a status, `hang`, `cut`, `slow`, `redirect`."""

    secret: str | None
    webhook_id: str | None = None
    faults: Mapping[str, float] = field(default_factory=dict)
    gone_after: int | None = None
    """After this many deliveries it answers 410."""
    received: int = 0


class Subscribers:
    """The server's application. `faults` is the weather for every endpoint that has none of its own."""

    def __init__(self, history: History, seed: str) -> None:
        self.base = ""
        self.faults: Mapping[str, float] = {}
        self.endpoints: dict[str, Endpoint] = {"callback": Endpoint(None)}
        self._history = history
        self._rng = random.Random(f"{seed} subscribers")

    def app(self) -> Starlette:
        """Return the server's application."""
        return Starlette(routes=[Route("/{name}", self._receive, methods=["POST"])])

    def url(self, name: str) -> str:
        """Return the URL of one of them."""
        return f"{self.base}/{name}"

    async def _receive(self, request: Request) -> Response:
        name = request.path_params["name"]
        body = await request.body()
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            return Response("no such endpoint", 404)
        endpoint.received += 1
        fault = self._fault(endpoint)
        if fault is not None:
            self._history.write("fault", f"subscriber: {fault}", hit=True, name=name)
        response = self._response(fault)
        headers = dict(request.headers)
        answer = None if fault in ("hang", "cut") else response.status_code
        self._history.write(
            f"subscriber:{name}",
            "received",
            webhook_id=endpoint.webhook_id,
            event_id=headers.get("webhook-id"),
            **_described(body),
            ok=_is_authentic(endpoint, headers, body),
            answer=answer,
            fault=fault,
        )
        if fault == "hang":
            await asyncio.sleep(_HANG_SECONDS)
        elif fault == "slow":
            await asyncio.sleep(0.7)
        return response

    def _fault(self, endpoint: Endpoint) -> str | None:
        if endpoint.gone_after is not None and endpoint.received > endpoint.gone_after:
            return "410"
        drawn = self._rng.random()
        for name, share in (endpoint.faults or self.faults).items():
            if drawn < share:
                return name
            drawn -= share
        return None

    def _response(self, fault: str | None) -> Response:
        if fault == "cut":
            return CutConnection()
        if fault == "410":
            return Response("gone", 410)
        headers = {"location": f"{self.base}/elsewhere"} if fault == "redirect" else {}
        return Response("heard", _STATUSES.get(fault or "", 200), headers)


def _is_authentic(endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> bool:
    if endpoint.secret is None:
        return headers.get("x-webhook-secret") == CALLBACK_SECRET
    return is_signed(endpoint.secret, headers, body)


def _described(body: bytes) -> dict[str, Any]:
    """Return what a body tells: in the format `standard`, or in PiAPI's, which has no type."""
    told = orjson.loads(body)
    data = told.get("data") or {}
    is_run = data.get("object") == "run" or "steps" in data
    return {
        "type": told.get("type"),
        "task_id": data.get("task_id"),
        "run_id": data.get("id") if is_run else data.get("run_id"),
        "status": data.get("status"),
        "attempt": data.get("attempt"),
    }
