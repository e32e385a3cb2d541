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
from receiver.domain.signatures import sign_pi, standard_headers
from receiver.domain.verdicts import Verdict, judge
from receiver.outbound.sender import Answer, Sender
from receiver.outbound.settle import Settler
from receiver.storage.database import Database
from receiver.storage.deliveries import give_back, to_send
from receiver.storage.transaction import LeasedDelivery, Settlement
from receiver.telemetry import deliveries_settled, get_logger

log = get_logger("outbound.deliver")

_BODIES = {
    DeliveryFormat.STANDARD: standard_body,
    DeliveryFormat.PI: pi_body,
    DeliveryFormat.PIAPI: piapi_body,
}


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
    schedule_from: int = 0


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of an attempt, and what it says of the endpoint's pace."""

    settlement: Settlement
    slow_down: bool
    retry_after: float

    @property
    def delivered(self) -> bool:
        """Whether the subscriber has it."""
        return self.settlement.status == DeliveryStatus.DELIVERED


class Deliverer:
    """Makes attempts. `delays` are the seconds before each attempt, the first included."""

    def __init__(
        self, database: Database, sender: Sender, settler: Settler, keyring: KeyRing, delays: Sequence[float]
    ) -> None:
        self._database = database
        self._sender = sender
        self._settler = settler
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

    async def attempt(self, parcel: Parcel) -> Attempted:
        """Send a parcel and write down what came of it; return that when it is on disk."""
        headers = _headers(parcel, int(utc_now().timestamp()))
        answer = await self._sender.send(parcel.url, headers, parcel.body)
        verdict = self._judge(parcel, answer)
        settlement = _settlement(parcel.lease, answer, verdict, utc_now())
        held = await self._database.writer.write(self._settler.settle, settlement, bounded=False)
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
        return Attempted(settlement, verdict.slow_down, answer.retry_after or 0.0)

    def _parcel(self, lease: LeasedDelivery, row: Mapping[str, Any]) -> Parcel:
        event, subscription, task = (_part(row, name) for name in ("event", "subscription", "task"))
        form = DeliveryFormat(subscription["format"])
        return Parcel(
            lease=lease,
            url=subscription["endpoint_url"],
            format=form,
            secret=self._decrypt(subscription["secret"]) if subscription["secret"] else None,
            schedule_from=row["delivery_schedule_from"],
            message_id=event["uid"],
            event_type=event["type"],
            body=orjson.dumps(_BODIES[form]({**task, "callback_url": subscription["endpoint_url"]}, event)),
        )

    def _judge(self, parcel: Parcel, answer: Answer) -> Verdict:
        return judge(
            ok=answer.ok,
            status_code=answer.status,
            retry_after=answer.retry_after,
            attempts=parcel.lease.attempt - parcel.schedule_from,
            delays=self._delays,
            jitter=random.random(),  # noqa: S311
        )


def _settlement(lease: LeasedDelivery, answer: Answer, verdict: Verdict, now: datetime) -> Settlement:
    return Settlement(
        delivery_id=lease.id,
        subscription_id=lease.subscription_id,
        attempt=lease.attempt,
        status=verdict.status,
        due_at=None if verdict.delay is None else now + timedelta(seconds=verdict.delay),
        settled_at=None if verdict.status == DeliveryStatus.PENDING else now,
        started_at=answer.started_at,
        duration_ms=answer.duration_ms,
        status_code=answer.status,
        error=answer.error,
        response=answer.response,
    )


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
