"""What the demo's subscriber heard: it verifies, refuses at times, and ignores what it was told before. No I/O."""

import base64
import hmac
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from receiver.cli.show import ENDS

OK, REFUSED, FORBIDDEN = 200, 500, 401
_MOST_REFUSALS = 2
"""How often one notice is refused: there is an end to every subscriber's bad day."""
_TOLERANCE_SECONDS = 300


@dataclass
class Told:
    """One event, as the subscriber was told of it."""

    task_id: str
    type: str
    seconds: float
    """From the event to its first arrival here."""
    accepted: bool = False
    refusals: int = 0


class SubscriberLog:
    """The subscriber's book.

    `counts`: notices `received`, `forged`, `refused`, `accepted`, `repeats`; `callbacks`, and the ends among them.
    """

    def __init__(self, secret: str, callback_secret: str, *, refuse_share: float, seed: int) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._callback_secret = callback_secret
        self._refuse_share = refuse_share
        self._chance = random.Random(seed)  # noqa: S311 - misfortune that can be repeated, not a key
        self.counts = Counter(received=0, forged=0, refused=0, accepted=0, repeats=0, callbacks=0, callback_ends=0)
        self.told: dict[str, Told] = {}
        """By the event's id, the `webhook-id`."""
        self.callbacks: dict[str, str] = {}
        """The last state that a task's own callback was told, by task id; an end is not overwritten."""

    def hear(self, headers: Mapping[str, str], body: bytes, now: float) -> int:
        """Take a Standard Webhooks delivery; `now` is unix seconds. Return the HTTP status to answer with."""
        self.counts["received"] += 1
        if not self._is_signed(headers, body, now):
            self.counts["forged"] += 1
            return FORBIDDEN
        message = orjson.loads(body)
        told = self.told.setdefault(headers["webhook-id"], _told(message, now))
        if told.accepted:
            self.counts["repeats"] += 1
            return OK
        if told.refusals < _MOST_REFUSALS and self._chance.random() < self._refuse_share:
            return self._refuse(told)
        self._accept(told)
        return OK

    def hear_callback(self, headers: Mapping[str, str], body: bytes) -> int:
        """Take a notice in PiAPI's form, sent for one task's own `webhook_config`."""
        if not hmac.compare_digest(headers.get("x-webhook-secret", "").encode(), self._callback_secret.encode()):
            self.counts["forged"] += 1
            return FORBIDDEN
        self.counts["callbacks"] += 1
        task = orjson.loads(body)["data"]
        if self.callbacks.get(task["task_id"]) not in ENDS:
            self.callbacks[task["task_id"]] = task["status"]
            self.counts["callback_ends"] += task["status"] in ENDS
        return OK

    def book(self) -> dict[str, Any]:
        """Return all that was heard, as JSON."""
        return {"counts": self.counts, "told": self.told, "callbacks": self.callbacks}

    def _refuse(self, told: Told) -> int:
        told.refusals += 1
        self.counts["refused"] += 1
        if self._chance.random() < 0.5:
            # It has the notice, and dies before it can say so: the next one is a repeat.
            self._accept(told)
        return REFUSED

    def _accept(self, told: Told) -> None:
        told.accepted = True
        self.counts["accepted"] += 1

    def _is_signed(self, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message_id or not timestamp.isdecimal() or abs(now - int(timestamp)) > _TOLERANCE_SECONDS:
            return False
        signed = b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)
        wanted = b"v1," + base64.b64encode(hmac.digest(self._key, signed, "sha256"))
        given = headers.get("webhook-signature", "").encode().split(b" ")
        return any(hmac.compare_digest(wanted, signature) for signature in given)


def _told(message: dict[str, Any], now: float) -> Told:
    event_time = datetime.fromisoformat(message["timestamp"]).timestamp()
    return Told(message["data"]["task_id"], message["type"], max(0.0, now - event_time))
