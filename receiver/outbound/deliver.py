"""One attempt at a delivery: its body and signatures, the request, and what came of it."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from models import DeliveryFormat, DeliveryStatus
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.domain.representations import job_event_type, pi_body, piapi_body, standard_body
from receiver.domain.schedules import delivery_delay
from receiver.domain.signatures import sign_pi, standard_headers
from receiver.outbound.sender import Answer, Sender
from receiver.storage.database import Database
from receiver.storage.deliveries import give_back, to_send
from receiver.storage.transaction import LeasedDelivery, Settlement, Transaction
from receiver.telemetry import deliveries_settled, get_logger

log = get_logger("outbound.deliver")

_BODIES = {
    DeliveryFormat.STANDARD: standard_body,
    DeliveryFormat.PI: pi_body,
    DeliveryFormat.PIAPI: piapi_body,
}
_LONGEST_RETRY_AFTER = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A delivery ready to be sent: everything but the time of the attempt."""

    lease: LeasedDelivery
    url: str
    format: DeliveryFormat
    secret: str | None
    message_id: str
    event_type: str
    body: bytes


class Deliverer:
    """Makes attempts. `delays` are the seconds before each attempt, the first included."""

    def __init__(self, database: Database, sender: Sender, keyring: KeyRing, delays: Sequence[float]) -> None:
        self._database = database
        self._sender = sender
        self._delays = delays
        self._decrypt = lru_cache(maxsize=1024)(keyring.decrypt)

    async def prepare(self, leases: Sequence[LeasedDelivery]) -> list[Parcel]:
        """Read what the leased deliveries need, in one query; those that must not be sent now are left out."""
        rows = await self._database.read(to_send([lease.id for lease in leases]))
        found = {row["delivery_id"]: row for row in rows}
        held = [lease for lease in leases if _is_held(lease, found.get(lease.id))]
        parked = [lease for lease in held if not found[lease.id]["subscription_is_active"]]
        if parked:
            await self._database.writer.run(lambda tx: give_back(tx, parked, None), bounded=False)
        return [self._parcel(lease, found[lease.id]) for lease in held if lease not in parked]

    async def attempt(self, parcel: Parcel) -> Settlement:
        """Send a parcel and write down what came of it; return that when it is on disk."""
        headers = _headers(parcel, int(utc_now().timestamp()))
        answer = await self._sender.send(parcel.url, headers, parcel.body)
        settlement = self._settlement(parcel.lease, answer, utc_now())
        held = await self._database.writer.write(settle, settlement, bounded=False)
        deliveries_settled.labels(settlement.status if held else "lease lost").inc()
        if not answer.ok:
            log.warning(
                "not delivered",
                delivery=parcel.lease.id,
                attempt=parcel.lease.attempt,
                status=answer.status,
                error=answer.error,
                next=settlement.due_at.isoformat() if settlement.due_at else None,
            )
        return settlement

    def _parcel(self, lease: LeasedDelivery, row: Mapping[str, Any]) -> Parcel:
        event, subscription, task = (_part(row, name) for name in ("event", "subscription", "task"))
        form = DeliveryFormat(subscription["format"])
        return Parcel(
            lease=lease,
            url=subscription["endpoint_url"],
            format=form,
            secret=self._decrypt(subscription["secret"]) if subscription["secret"] else None,
            message_id=event["uid"],
            event_type=event["type"],
            body=orjson.dumps(_BODIES[form]({**task, "callback_url": subscription["endpoint_url"]}, event)),
        )

    def _settlement(self, lease: LeasedDelivery, answer: Answer, now: datetime) -> Settlement:
        status, due_at = _outcome(answer, lease.attempt, self._delays, now)
        return Settlement(
            delivery_id=lease.id,
            attempt=lease.attempt,
            status=status,
            due_at=due_at,
            settled_at=None if status == DeliveryStatus.PENDING else now,
            started_at=answer.started_at,
            duration_ms=answer.duration_ms,
            status_code=answer.status,
            error=answer.error,
            response=answer.response,
        )


async def settle(tx: Transaction, settlements: Sequence[Settlement]) -> list[bool | Exception]:
    """Write outcomes of attempts, many in one commit; False for one whose lease was lost."""
    return list(await tx.settle(settlements))


def _outcome(
    answer: Answer, attempt: int, delays: Sequence[float], now: datetime
) -> tuple[DeliveryStatus, datetime | None]:
    if answer.ok:
        return DeliveryStatus.DELIVERED, None
    delay = delivery_delay(attempt, delays, random.random())  # noqa: S311
    if delay is None:
        return DeliveryStatus.DEAD, None
    asked = min(answer.retry_after or 0, _LONGEST_RETRY_AFTER)
    return DeliveryStatus.PENDING, now + timedelta(seconds=max(delay, asked))


def _is_held(lease: LeasedDelivery, row: Mapping[str, Any] | None) -> bool:
    return (
        row is not None
        and row["delivery_status"] == DeliveryStatus.PENDING
        and row["delivery_attempt"] == lease.attempt
    )


def _headers(parcel: Parcel, timestamp: int) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if parcel.format == DeliveryFormat.PIAPI:
        # PiAPI's proof is the secret itself (contracts/piapi.md); the id lets the client drop repeats.
        secret = {"x-webhook-secret": parcel.secret} if parcel.secret else {}
        return headers | secret | {"webhook-id": parcel.message_id}
    assert parcel.secret is not None  # noqa: S101 - every registered subscription has one
    headers |= standard_headers([parcel.secret], parcel.message_id, timestamp, parcel.body)
    if parcel.format == DeliveryFormat.PI:
        headers["x-pi-event"] = job_event_type(parcel.event_type)
        headers["x-pi-signature"] = sign_pi(parcel.secret, parcel.body)
    return headers


def _part(row: Mapping[str, Any], table: str) -> dict[str, Any]:
    prefix = f"{table}_"
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
