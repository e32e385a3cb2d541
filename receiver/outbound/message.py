"""What one subscriber is told: the body in its form, and the headers of an attempt with their signatures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from models import DeliveryFormat
from receiver.domain.keyring import KeyRing, MasterKeyMissing
from receiver.domain.redaction import REDACTED
from receiver.domain.representations import (
    Fields,
    cloudevents_body,
    job_event_type,
    pi_body,
    piapi_body,
    standard_body,
)
from receiver.domain.rotation import live_retired
from receiver.domain.signatures import sign_pi, standard_headers
from receiver.errors import RingbackError
from receiver.outbound.sender import Sender, SendResult

_SHORTEST_ECHO = 8
"""Characters. What is shorter is no secret, and would be found everywhere."""
_JSON = "application/json"
_CLOUDEVENT = "application/cloudevents+json"


@dataclass(slots=True, kw_only=True)
class Message:
    """An event as one subscriber is told of it, never changed: everything but the time of the attempt.

    `secrets` are those that sign now, the newest first; `own_headers` are the user's.
    """

    id: str
    event_type: str
    format: DeliveryFormat
    body: bytes
    secrets: tuple[str, ...]
    own_headers: Mapping[str, str]

    async def send(self, sender: Sender, url: str, now: datetime) -> SendResult:
        """Make an attempt now; return what came of it, without what the answer echoes of the secrets it was sent."""
        answer = await sender.send(url, self.headers(now), self.body)
        answer.response = self._without_echoes(answer.response)
        return answer

    def headers(self, now: datetime) -> dict[str, str]:
        """Return the headers of an attempt that is made now."""
        return {**self.own_headers, **self._ours(int(now.timestamp()))}

    def _without_echoes(self, response: str) -> str:
        for secret in (*self.secrets, *self.own_headers.values()):
            if len(secret) >= _SHORTEST_ECHO:
                response = response.replace(secret, REDACTED)
        return response

    def _ours(self, timestamp: int) -> dict[str, str]:
        if self.format == DeliveryFormat.PIAPI:
            # PiAPI's proof is the secret itself (contracts/piapi.md); the id lets the client drop repeats.
            secret = {"x-webhook-secret": self.secrets[0]} if self.secrets else {}
            return {"content-type": _JSON} | secret | {"webhook-id": self.id}
        headers = {"content-type": _CLOUDEVENT if self.format == DeliveryFormat.CLOUDEVENTS else _JSON}
        headers |= standard_headers(self.secrets, self.id, timestamp, self.body)
        if self.format == DeliveryFormat.PI:
            headers["x-pi-event"] = job_event_type(self.event_type)
            headers["x-pi-signature"] = sign_pi(self.secrets[0], self.body)
        return headers


class MessageBuilder:
    """Composes messages. What it decrypts it remembers, for as long as there is room."""

    def __init__(self, keyring: KeyRing) -> None:
        self._decrypt = lru_cache(maxsize=1024)(keyring.decrypt)

    def build(
        self, subscription: Fields, event: Fields, task: Fields | None, *, organization_uid: str, now: datetime
    ) -> Message:
        """Return what this subscriber is told of an event; `task` is the row of its task, None if it has none.

        Raises `MasterKeyMissing` when what is encrypted in the subscription cannot be read.
        """
        form = DeliveryFormat(subscription["format"])
        if task is not None:
            task = {**task, "callback_url": subscription["endpoint_url"]}
        return Message(
            id=event["uid"],
            event_type=event["type"],
            format=form,
            body=orjson.dumps(_body(form, task, event, organization_uid)),
            secrets=self._secrets(subscription, form, now),
            own_headers=self.own_headers(subscription),
        )

    def build_delivery(self, row: Fields, now: datetime) -> Message:
        """Return the message of a delivery, from a row of `storage.deliveries.TO_SEND`. Raises as `build`."""
        return self.build(
            row["subscription"],
            row["event"],
            row["task"] if row["task"]["id"] is not None else None,
            organization_uid=row["organization"]["uid"],
            now=now,
        )

    def own_headers(self, subscription: Fields) -> dict[str, str]:
        """Return the user's own headers. Raises `MasterKeyMissing`."""
        token = subscription["headers"]
        return dict(orjson.loads(self._decrypt(token))) if token else {}

    def newest_secret(self, subscription: Fields) -> str | None:
        """Return the secret that a rotation made last. Raises `MasterKeyMissing`."""
        return self._decrypt(subscription["secret"]) if subscription["secret"] else None

    def _secrets(self, subscription: Fields, form: DeliveryFormat, now: datetime) -> tuple[str, ...]:
        newest = self.newest_secret(subscription)
        if newest is None:
            if form == DeliveryFormat.PIAPI:
                return ()
            raise RingbackError("it has no secret to sign with")
        return (newest, *self._retired(subscription, now))

    def _retired(self, subscription: Fields, now: datetime) -> list[str]:
        secrets = []
        for token in live_retired(subscription["retired_secrets"], now):
            try:
                secrets.append(self._decrypt(token))
            except MasterKeyMissing:
                continue  # it was going anyway, and the newest signs
        return secrets


def _body(form: DeliveryFormat, task: Fields | None, event: Fields, organization_uid: str) -> dict[str, Any]:
    match form:
        case DeliveryFormat.STANDARD:
            return standard_body(task, event)
        case DeliveryFormat.PI:
            return pi_body(task, event)
        case DeliveryFormat.PIAPI:
            return piapi_body(task, event)
        case DeliveryFormat.CLOUDEVENTS:
            return cloudevents_body(task, event, source_of(organization_uid))


def source_of(organization_uid: str) -> str:
    """Return the `source` of an organization's CloudEvents. Not the public URL: that may change, and this may not."""
    return f"urn:ringback:{organization_uid}"
