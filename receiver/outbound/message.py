"""The message of a delivery: the body in the subscription's format, and the headers of an attempt, signed."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

import orjson
from msgspec import Struct

from models import DeliveryFormat, SubscriptionKind
from receiver.domain.keyring import KeyRing, MasterKeyMissing
from receiver.domain.predictions import Addresses, prediction_body
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
from receiver.hidden_fields import HidesFields
from receiver.large_bodies import read_by_size
from receiver.outbound.sender import KEPT_BYTES, Sender, SendResult
from receiver.telemetry.trace_context import TRACEPARENT

_SHORTEST_ECHO = 8
"""Characters. A shorter text is not a secret, and would be found everywhere."""
_SHORTEST_CUT = KEPT_BYTES // 4
"""Characters. A shorter response was not cut, whatever its characters take in UTF-8."""
_JSON = "application/json"
_CLOUDEVENT = "application/cloudevents+json"


class Message(HidesFields, Struct, kw_only=True):
    """An event in the form in which one subscriber gets it: all that is the same for every attempt.

    `secrets` are those that sign now, the newest first; `own_headers` are those that the user added to the webhook.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"secrets", "own_headers"})

    id: str
    event_type: str
    format: DeliveryFormat
    body: bytes
    secrets: tuple[str, ...]
    own_headers: Mapping[str, str]

    async def send(self, sender: Sender, url: str, now: datetime, *, traceparent: str | None = None) -> SendResult:
        """Send it to `url` now; return the result, with the secrets redacted that it echoes.

        `now` is the time that is signed (`receiver.clock`). `traceparent` names the trace that it belongs to, unless
        the user added a header of that name.
        """
        headers = await read_by_size(len(self.body), lambda: self.headers(now))  # which signs the body
        if traceparent is not None and TRACEPARENT not in map(str.lower, self.own_headers):
            headers[TRACEPARENT] = traceparent
        result = await sender.send(url, headers, self.body)
        result.response = self._without_echoes(result.response)
        return result

    def headers(self, now: datetime) -> dict[str, str]:
        """Return the headers of an attempt at the time `now`."""
        return {**self.own_headers, **self._format_headers(int(now.timestamp()))}

    def _without_echoes(self, response: str) -> str:
        if len(response) < _SHORTEST_ECHO:
            return response
        values = self.own_headers.values()
        # The credentials of a header may come back without their scheme: `Bearer abc` as `abc`.
        hidden = {*self.secrets, *values, *(value.rpartition(" ")[2] for value in values)}
        for secret in sorted(hidden, key=len, reverse=True):
            if len(secret) >= _SHORTEST_ECHO:
                response = response.replace(secret, REDACTED)
                if len(response) >= _SHORTEST_CUT:
                    response = _without_beginning(response, secret)
        return response

    def _format_headers(self, timestamp: int) -> dict[str, str]:
        if self.format == DeliveryFormat.PIAPI:
            # PiAPI's proof is the secret itself (`receiver/providers/piapi/CONTRACT.md`, "Webhook"); the id lets the
            # client drop duplicates.
            secret = {"x-webhook-secret": self.secrets[0]} if self.secrets else {}
            return {"content-type": _JSON} | secret | {"webhook-id": self.id}
        headers = {"content-type": _CLOUDEVENT if self.format == DeliveryFormat.CLOUDEVENTS else _JSON}
        is_pi = self.format == DeliveryFormat.PI
        headers |= standard_headers(self.secrets, self.id, timestamp, self.body, shared=is_pi)
        if is_pi:
            headers["x-pi-event"] = job_event_type(self.event_type)
            headers["x-pi-signature"] = sign_pi(self.secrets[0], self.body)
        return headers


class MessageBuilder:
    """Builds messages. It caches what it decrypts, in memory and bounded.

    `addresses` are where the service is reached from outside, None if that is not known.
    """

    def __init__(self, keyring: KeyRing, addresses: Addresses | None = None) -> None:
        self._keyring = keyring
        self._addresses = addresses
        self._decrypt = lru_cache(maxsize=1024)(keyring.decrypt)

    def build(
        self, subscription: Fields, event: Fields, task: Fields | None, *, organization_uid: str, now: datetime
    ) -> Message:
        """Return the message of an event for this subscription; `task` is the row of its task, None if it has none.

        Raises `MasterKeyMissing` if the key that encrypted the subscription's secret or headers is gone.
        """
        form = DeliveryFormat(subscription["format"])
        if task is not None:
            task = {**task, "callback_url": subscription["endpoint_url"]}
        return Message(
            id=event["uid"],
            event_type=event["type"],
            format=form,
            body=orjson.dumps(self._body(form, task, event, organization_uid)),
            secrets=self._secrets(subscription, form, now, organization_uid),
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
        """Return the headers that the user added to the webhook. Raises `MasterKeyMissing`."""
        token = subscription["headers"]
        return dict(orjson.loads(self._decrypt(token))) if token else {}

    def newest_secret(self, subscription: Fields) -> str | None:
        """Return the subscription's present secret, the newest of a rotation. Raises `MasterKeyMissing`."""
        return self._decrypt(subscription["secret"]) if subscription["secret"] else None

    def callback_secrets(self, organization_uid: str) -> tuple[str, ...]:
        """Return the secrets that sign callbacks in Replicate's form, the newest first."""
        return self._keyring.callback_secrets(organization_uid)

    def _secrets(
        self, subscription: Fields, form: DeliveryFormat, now: datetime, organization_uid: str
    ) -> tuple[str, ...]:
        newest = self.newest_secret(subscription)
        if newest is None:
            if form == DeliveryFormat.PIAPI:
                return ()
            if form == DeliveryFormat.REPLICATE and subscription["kind"] == SubscriptionKind.CALLBACK:
                return self.callback_secrets(organization_uid)
            raise RingbackError("the webhook has no secret to sign with: rotate its secret")
        return (newest, *self._retired(subscription, now))

    def _body(self, form: DeliveryFormat, task: Fields | None, event: Fields, organization_uid: str) -> dict[str, Any]:
        match form:
            case DeliveryFormat.STANDARD:
                return standard_body(task, event)
            case DeliveryFormat.PI:
                return pi_body(task, event)
            case DeliveryFormat.PIAPI:
                return piapi_body(task, event)
            case DeliveryFormat.CLOUDEVENTS:
                return cloudevents_body(task, event, source_of(organization_uid))
            case DeliveryFormat.REPLICATE:
                return prediction_body(task, event, self._addresses)

    def _retired(self, subscription: Fields, now: datetime) -> list[str]:
        secrets = []
        for token in live_retired(subscription["retired_secrets"], now):
            try:
                secrets.append(self._decrypt(token))
            except MasterKeyMissing:
                continue  # it retires anyway, and the newest secret signs
        return secrets


def _without_beginning(response: str, secret: str) -> str:
    """Return a response without the beginning of a secret at its end, where it may have been cut."""
    for length in range(len(secret) - 1, _SHORTEST_ECHO - 1, -1):
        if response.endswith(secret[:length]):
            return response[:-length] + REDACTED
    return response


def source_of(organization_uid: str) -> str:
    """Return the `source` of an organization's CloudEvents. It may never change, so it is not the public URL."""
    return f"urn:ringback:{organization_uid}"
