"""The demo's subscriber: it verifies every notification, refuses some of them, and ignores repeats."""

import hmac
import random
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.cli.show import ENDS
from receiver.domain.signatures import sign_standard

OK, REFUSED, FORBIDDEN = 200, 500, 401
_MAX_REFUSALS = 2
"""How many times one event is refused, so that it is accepted before the service has no attempts left."""
_TOLERANCE_SECONDS = 300


class ReceivedEvent(Struct):
    """One event that the subscriber received."""

    task_id: str
    seconds: float
    """From the event to its first arrival."""
    accepted: bool = False
    refusals: int = 0


class SubscriberLog:
    """Decides on each request and records it.

    `counts`: requests `received`, `forged`, `refused`, `accepted`, `repeats`; `callbacks`, and `callback_ends`.
    """

    def __init__(self, secret: str, callback_secret: str, *, refused_share: float, seed: int) -> None:
        self.secret = secret
        self.callback_secret = callback_secret
        self._refused_share = refused_share
        self._rng = random.Random(seed)  # noqa: S311 - for repeatable faults, not for keys
        self.counts = Counter(received=0, forged=0, refused=0, accepted=0, repeats=0, callbacks=0, callback_ends=0)
        self.events: dict[str, ReceivedEvent] = {}
        """By the event's id, which is the header `webhook-id`."""
        self.callbacks: dict[str, str] = {}
        """The last status that a task's own callback received, by task id. A final status is not overwritten."""

    def receive(self, headers: Mapping[str, str], body: bytes, now: float) -> int:
        """Record a delivery in the format `standard`; `now` is unix seconds. Return the HTTP status of the answer."""
        self.counts["received"] += 1
        if not self._is_signed(headers, body, now):
            self.counts["forged"] += 1
            return FORBIDDEN
        event = self.events.setdefault(headers["webhook-id"], _received(orjson.loads(body), now))
        if event.accepted:
            self.counts["repeats"] += 1
            return OK
        refused = event.refusals < _MAX_REFUSALS and self._rng.random() < self._refused_share
        event.refusals += refused
        self.counts["refused"] += refused
        # Half of the refusals are those of a subscriber that stored the event before it failed: the next is a repeat.
        event.accepted = not refused or self._rng.random() < 0.5
        self.counts["accepted"] += event.accepted
        return REFUSED if refused else OK

    def receive_callback(self, headers: Mapping[str, str], body: bytes) -> int:
        """Record a delivery in the format `piapi`, which is sent to a task's own `webhook_config`."""
        if not hmac.compare_digest(headers.get("x-webhook-secret", "").encode(), self.callback_secret.encode()):
            self.counts["forged"] += 1
            return FORBIDDEN
        self.counts["callbacks"] += 1
        task = orjson.loads(body)["data"]
        if self.callbacks.get(task["task_id"]) not in ENDS:
            self.callbacks[task["task_id"]] = task["status"]
            self.counts["callback_ends"] += task["status"] in ENDS
        return OK

    def _is_signed(self, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message_id or not timestamp.isdecimal() or abs(now - int(timestamp)) > _TOLERANCE_SECONDS:
            return False
        expected = sign_standard(self.secret, message_id, int(timestamp), body).encode()
        given = headers.get("webhook-signature", "").encode().split(b" ")
        return any(hmac.compare_digest(expected, signature) for signature in given)


def create_subscriber(log: SubscriberLog) -> Starlette:
    """Return the subscriber as an ASGI app with `POST /standard` and `POST /callback`."""

    async def standard(request: Request) -> Response:
        return Response(status_code=log.receive(request.headers, await request.body(), time.time()))

    async def callback(request: Request) -> Response:
        return Response(status_code=log.receive_callback(request.headers, await request.body()))

    return Starlette(
        routes=[Route("/standard", standard, methods=["POST"]), Route("/callback", callback, methods=["POST"])]
    )


def _received(message: Mapping[str, Any], now: float) -> ReceivedEvent:
    event_time = datetime.fromisoformat(message["timestamp"]).timestamp()
    return ReceivedEvent(message["data"]["task_id"], max(0.0, now - event_time))
