"""One attempt at a delivery: build the signed message, send it, decide the outcome, and store that."""

import logging
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from models import DeliveryStatus, SubscriptionKind
from receiver.body_budget import BodyBudget
from receiver.clock import signed_time, utc_now
from receiver.domain.delivery_outcomes import DeliveryOutcome, outcome_of
from receiver.domain.representations import iso
from receiver.errors import RingbackError, Unavailable
from receiver.large_bodies import read_apart
from receiver.lease_check import LeaseEnded, SendLease, under
from receiver.lookups.resolver import looked_up_for
from receiver.outbound.message import Message, MessageBuilder
from receiver.outbound.sender import Sender, SendResult
from receiver.outbound.settle import Settler
from receiver.storage.database import Database
from receiver.storage.deliveries import LARGE_TASK_BYTES, TO_PREPARE, TO_SEND, park
from receiver.storage.hot import HotRow
from receiver.storage.transaction import LeasedDelivery, Settlement
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, delivery_attempts, delivery_seconds, sent_without_lease, timed
from receiver.telemetry.told import TOLD_TIMES
from receiver.telemetry.tracing import is_tracing, span

_HELD_TIMES = 3
"""A large task is held as text, as values and as the body of a message while the message is built."""

log = get_logger("outbound.deliver")


class PreparedDelivery(Struct, kw_only=True):
    """A delivery ready to be sent: everything but the time of the attempt.

    Where no `message` could be built, it is the reason: every attempt fails with it, and no other delivery waits. It is
    None if the task is large: then the attempt builds it, and `size` is that of the task's documents, in bytes.
    `schedule_from` is how many attempts came before the present schedule: those before a retry by hand do not count.
    `uid`, `event_uid`, `webhook_uid` (None for a client's own callback) and `task_uid` (None for an event of no task)
    are the ids that the API shows, for the log. `trace_context` is that of the task, or of the run.
    """

    lease: LeasedDelivery
    organization_id: int
    uid: str
    event_uid: str
    webhook_uid: str | None
    task_uid: str | None
    url: str
    message: Message | str | None
    size: int = 0
    schedule_from: int = 0
    trace_context: str | None = None


class Attempted(Struct):
    """The outcome of an attempt, and what it means for the rate at which the endpoint is sent to.

    `slow_down`: the endpoint fails or asks for fewer requests; `gone`: it answered 410; `retry_after` is in seconds.
    """

    settlement: Settlement
    slow_down: bool
    gone: bool
    retry_after: float

    @property
    def delivered(self) -> bool:
        """Whether the subscriber accepted the delivery."""
        return self.settlement.status == DeliveryStatus.DELIVERED


class Deliverer:
    """Makes attempts. `delays` are the seconds before each attempt, the first included.

    `room` bounds the bytes of large tasks, and of the messages about them, that attempts hold.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender,
        settler: Settler,
        messages: MessageBuilder,
        delays: Sequence[float],
        room: BodyBudget,
    ) -> None:
        self._database = database
        self._sender = sender
        self._settler = settler
        self._delays = delays
        self._messages = messages
        self._room = room

    async def prepare(self, leases: Sequence[LeasedDelivery]) -> list[PreparedDelivery]:
        """Read what the leased deliveries need, in one query; return those that may be sent now.

        Left out are deliveries whose lease was lost, and those whose subscription is inactive, which are parked.
        """
        rows = await self._database.read_by_keys(TO_PREPARE, [lease.id for lease in leases])
        found = {row["delivery"]["id"]: row for row in rows}
        held = [lease for lease in leases if _is_held(lease, found.get(lease.id))]
        parked = [lease for lease in held if not found[lease.id]["subscription"]["is_active"]]
        if parked:
            await self._database.writer.run(lambda tx: park(tx, parked, utc_now()), bounded=False)
        return [self._prepared(lease, found[lease.id]) for lease in held if lease not in parked]

    async def attempt(self, delivery: PreparedDelivery) -> Attempted:
        """Send a delivery once, and log the attempt; return its outcome, which the caller settles.

        Raises `LeaseEnded` if the delivery's lease ended before the request was written, and `Unavailable` if there was
        no room for a large message, or the database could not be read: then nothing was sent.
        """
        message = delivery.message
        if message is None:
            message = await self._large_message(delivery)
        lease, started_at = SendLease(delivery.lease.lease_until), utc_now()
        with under(lease), looked_up_for(delivery.organization_id):
            if is_tracing():
                result = await self._send_traced(delivery, message, started_at)
            else:
                result = await self._send(delivery.url, message, started_at, delivery.trace_context)
        if lease.has_ended():
            counted(sent_without_lease, "delivery").inc()
            log.warning("delivery outlasted its lease", **_ids(delivery))
        outcome = self._outcome(delivery, result)
        settlement = _settlement(delivery.lease, result, outcome, started_at, utc_now())
        timed(delivery_seconds, _word(settlement)).observe(result.duration_ms / 1000)
        if result.ok:
            TOLD_TIMES.told(delivery.event_uid, "delivery")
        is_dead = settlement.status == DeliveryStatus.DEAD
        if is_dead or log.is_enabled_for(logging.DEBUG):
            _log_attempt(delivery, result, settlement, is_dead=is_dead)
        return Attempted(settlement, outcome.slow_down, outcome.gone, result.retry_after or 0.0)

    async def settle(self, settlement: Settlement, *, deferrable: bool = False) -> None:
        """Store the outcome of an attempt; return when it is on disk. Raises `StorageUnavailable`.

        A `deferrable` one may wait a little for a commit that other writes need anyway.
        """
        held = await self._database.writer.write(
            self._settler.settle, settlement, bounded=False, deferrable=deferrable, until_known=True
        )
        counted(delivery_attempts, _word(settlement) if held else "lease lost").inc()

    async def _large_message(self, delivery: PreparedDelivery) -> Message | str:
        """Read a large task and build the message about it. The room for it is held until this asyncio task ends."""
        room = _HELD_TIMES * delivery.size
        try:
            await self._room.take(delivery.organization_id, room)
        except Unavailable:
            raise Unavailable("too many bytes of deliveries are held at the moment: it is sent later") from None
        if utc_now() + timedelta(seconds=self._sender.timeout) > delivery.lease.lease_until:
            raise LeaseEnded
        rows = await self._database.read_large_by_keys(TO_SEND, [delivery.lease.id])
        if not rows:  # deleted meanwhile
            raise LeaseEnded
        row = rows.pop()
        message = await read_apart(lambda: self._message(delivery.lease, row))
        size = 0 if isinstance(message, str) else len(message.body)
        self._room.give_back(max(0, room - 2 * size))  # it is copied once when it is sent
        return message

    async def _send_traced(
        self, delivery: PreparedDelivery, message: Message | str, started_at: datetime
    ) -> SendResult:
        """Send within a span, which the subscriber is told of."""
        with span("deliver event", delivery.trace_context, "CLIENT", **_ids(delivery)) as own:
            result = await self._send(delivery.url, message, started_at, own.traceparent or delivery.trace_context)
            own.answered(result.status)
            if not result.ok:
                own.fail("no response" if result.status is None else str(result.status), result.error)
            return result

    async def _send(
        self, url: str, message: Message | str, started_at: datetime, traceparent: str | None
    ) -> SendResult:
        if isinstance(message, str):
            return SendResult(status=None, error=message, response="", duration_ms=0, retry_after=None)
        # The one time that is stored, so that the API shows the request as it was signed.
        return await message.send(self._sender, url, signed_time(started_at), traceparent=traceparent)

    def _prepared(self, lease: LeasedDelivery, row: HotRow) -> PreparedDelivery:
        subscription = row["subscription"]
        size = row["task"]["stored_bytes"] or 0
        return PreparedDelivery(
            lease=lease,
            organization_id=row["organization"]["id"],
            uid=row["delivery"]["uid"],
            event_uid=row["event"]["uid"],
            webhook_uid=subscription["uid"] if subscription["kind"] == SubscriptionKind.REGISTERED else None,
            task_uid=row["task"]["uid"],
            url=subscription["endpoint_url"],
            message=self._message(lease, row) if size <= LARGE_TASK_BYTES else None,
            size=size,
            schedule_from=row["delivery"]["schedule_from"],
            trace_context=row["task"]["trace_context"] or row["run"]["trace_context"],
        )

    def _message(self, lease: LeasedDelivery, row: HotRow) -> Message | str:
        try:
            return self._messages.build_delivery(row, utc_now())
        except RingbackError as error:
            return error.message
        except Exception as error:
            log.error("delivery message could not be built", delivery_id=row["delivery"]["uid"], exc_info=error)
            return f"the message could not be built ({type(error).__name__})"

    def _outcome(self, delivery: PreparedDelivery, result: SendResult) -> DeliveryOutcome:
        return outcome_of(
            ok=result.ok,
            status_code=result.status,
            retry_after=result.retry_after,
            attempts=delivery.lease.attempt - delivery.schedule_from,
            delays=self._delays,
            jitter=random.random(),  # noqa: S311
        )


def _log_attempt(delivery: PreparedDelivery, result: SendResult, settlement: Settlement, *, is_dead: bool) -> None:
    """Write the record of an attempt at `debug`, and one at `warning` if it was the last and failed."""
    fields = {
        **_ids(delivery),
        "status_code": result.status,
        "duration_ms": result.duration_ms,
        "error": result.error,
    }
    event = "delivery attempt succeeded" if result.ok else "delivery attempt failed"
    log.debug(event, **fields, next_attempt_at=iso(settlement.due_at))
    if is_dead:
        log.warning("delivery dead", **fields)


def _word(settlement: Settlement) -> str:
    """Return the outcome of an attempt, as the metrics name it: the delivery of one that failed is pending again."""
    return "failed" if settlement.status == DeliveryStatus.PENDING else str(settlement.status)


def _ids(delivery: PreparedDelivery) -> dict[str, Any]:
    return {
        "delivery_id": delivery.uid,
        "event_id": delivery.event_uid,
        "webhook_id": delivery.webhook_uid,
        "task_id": delivery.task_uid,
        "attempt": delivery.lease.attempt,
    }


def _settlement(
    lease: LeasedDelivery, result: SendResult, outcome: DeliveryOutcome, started_at: datetime, now: datetime
) -> Settlement:
    return Settlement(
        delivery_id=lease.id,
        subscription_id=lease.subscription_id,
        attempt=lease.attempt,
        status=outcome.status,
        due_at=None if outcome.delay is None else now + timedelta(seconds=outcome.delay),
        settled_at=None if outcome.status == DeliveryStatus.PENDING else now,
        started_at=started_at,
        duration_ms=result.duration_ms,
        status_code=result.status,
        error=result.error,
        response=result.response,
    )


def _is_held(lease: LeasedDelivery, row: HotRow | None) -> bool:
    return (
        row is not None
        and row["delivery"]["status"] == DeliveryStatus.PENDING
        and row["delivery"]["attempt"] == lease.attempt
    )
