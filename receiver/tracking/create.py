"""Creating tasks: the row is on disk before the provider is called (`receiver.tracking.submit` says why)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, ClassVar

from msgspec import Struct, field

from models import TASK_EVENTS, DeliveryFormat, EventType, SignatureScheme, Submission, SubscriptionKind
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.events.after_commit import AfterCommit
from receiver.events.record import record, task_created
from receiver.hidden_fields import HidesFields
from receiver.storage.callbacks import CallbackKey
from receiver.storage.optimistic import comes_last, may_be_optimistic
from receiver.storage.subscriptions import callback_keys
from receiver.storage.tasks import new_task
from receiver.storage.transaction import Transaction
from receiver.telemetry.request_ids import current_request_id
from receiver.telemetry.trace_context import current_trace_context

CALLBACK_EVENTS = tuple(event for event in TASK_EVENTS if event != EventType.TASK_CREATED)
"""The events that a client's own `webhook_config` receives: those for which PiAPI itself sends a webhook."""
_BULK_SPACING = timedelta(microseconds=1)
"""Between the `due_at` of the tasks of one bulk: it keeps their order and delays none noticeably."""


class Callback(HidesFields, Struct, frozen=True):
    """A client's own callback, such as `config.webhook_config`: `secret` is encrypted.

    `fingerprint` is a keyed hash of all that makes it another one.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"secret"})

    endpoint_url: str
    secret: str | None
    fingerprint: str
    format: DeliveryFormat = DeliveryFormat.PIAPI
    event_types: Sequence[EventType] = CALLBACK_EVENTS


class TaskRequest(Struct, frozen=True, kw_only=True):
    """A task that a client requests, validated."""

    organization_id: int
    provider: str
    account_id: int | None = None
    """The row key of the account to use; None for that of the environment."""
    model: str
    task_type: str
    input: dict[str, Any]
    uid: str = field(default_factory=new_id)
    """The id that the task will have."""
    config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    callback: Callback | None = None
    max_attempts: int = 1
    backoff_seconds: float = 1.0
    request_id: str | None = field(default_factory=current_request_id)
    """The id of the client's request."""
    trace_context: str | None = field(default_factory=current_trace_context)
    """The trace that the client's request belongs to (`receiver.telemetry.trace_context`)."""


class Created(Struct):
    """A task that is on disk: leased to this process, which sends it now, or (of a bulk) waiting to be sent.

    Its row key `id` is known after the commit. `lease_until` is the end of that lease; a task of a bulk has none.
    """

    id: int
    uid: str
    lease_until: datetime | None = None


class Creator:
    """Creates tasks. One instance per process: the writer groups by its handlers `create` and `create_bulk`."""

    def __init__(self, after_commit: AfterCommit, *, lease_seconds: float) -> None:
        self._after_commit = after_commit
        self._lease = timedelta(seconds=lease_seconds)

    @comes_last
    @may_be_optimistic
    async def create(self, tx: Transaction, requests: Sequence[TaskRequest]) -> list[Created | Exception]:
        """Insert a row and a `task.created` for each request; the results are in the same order."""
        now = utc_now()
        due = now + self._lease
        initial = _Initial(Submission.SENDING, submitted_at=now, leased=True)
        created = await self._insert(tx, requests, initial, [due] * len(requests), now)
        tx.after_commit.append(lambda: self._after_commit.due.set(due))
        return list(created)

    @comes_last
    @may_be_optimistic
    async def create_bulk(
        self, tx: Transaction, bulks: Sequence[Sequence[TaskRequest]]
    ) -> list[list[Created] | Exception]:
        """Do the same for bulks, each a list of requests. Their tasks wait to be sent, in their order."""
        now = utc_now()
        initial = _Initial(Submission.WAITING, bulk=True)
        requests = list(chain.from_iterable(bulks))
        due = [now + position * _BULK_SPACING for position in range(len(requests))]
        created = iter(await self._insert(tx, requests, initial, due, now))
        tx.after_commit.append(lambda: self._after_commit.due.set(now))
        return [list(islice(created, len(bulk))) for bulk in bulks]

    async def _insert(
        self,
        tx: Transaction,
        requests: Sequence[TaskRequest],
        initial: "_Initial",
        due: Sequence[datetime],
        now: datetime,
    ) -> list[Created]:
        callbacks = await _callback_ids(tx, requests, now)
        callback_ids = [_callback_id(request, callbacks) for request in requests]
        rows = [
            _new_task(request, initial, callback_id, due_at, now)
            for request, callback_id, due_at in zip(requests, callback_ids, due, strict=True)
        ]
        keys = await tx.insert_tasks(rows)
        events = [
            task_created(row, key, now, request.request_id)
            for row, key, request in zip(rows, keys, requests, strict=True)
        ]
        await record(tx, events, self._after_commit, now)
        created = [
            Created(key, request.uid, due_at if initial.leased else None)
            for key, request, due_at in zip(keys, requests, due, strict=True)
        ]
        tx.after_commit.append(lambda: _note_keys(created, keys))
        return created


class _Initial(Struct, frozen=True):
    """The column values that all tasks of `create`, or all of `create_bulk`, begin with."""

    submission: Submission
    submitted_at: datetime | None = None
    leased: bool = False
    bulk: bool = False


def _note_keys(created: Sequence[Created], keys: Sequence[int]) -> None:
    for each, key in zip(created, keys, strict=True):
        each.id = key


def _new_task(
    request: TaskRequest, initial: _Initial, callback_id: int | None, due_at: datetime, now: datetime
) -> dict[str, Any]:
    return new_task(
        uid=request.uid,
        organization_id=request.organization_id,
        provider=request.provider,
        account_id=request.account_id,
        model=request.model,
        task_type=request.task_type,
        input=request.input,
        submission=initial.submission,
        now=now,
        config=request.config,
        metadata=request.metadata,
        callback_id=callback_id,
        bulk=initial.bulk,
        max_attempts=request.max_attempts,
        backoff_seconds=request.backoff_seconds,
        trace_context=request.trace_context,
        submitted_at=initial.submitted_at,
        due_at=due_at,
        leased=initial.leased,
    )


def _callback_id(request: TaskRequest, callbacks: dict[CallbackKey, int]) -> int | None:
    if request.callback is None:
        return None
    return callbacks[request.organization_id, request.callback.fingerprint]


async def _callback_ids(tx: Transaction, requests: Sequence[TaskRequest], now: datetime) -> dict[CallbackKey, int]:
    """Find or insert the subscription of each client's own callback: one row for each URL and secret."""
    wanted = {
        (request.organization_id, request.callback.fingerprint): request.callback
        for request in requests
        if request.callback is not None
    }
    return await callback_keys(tx, {key: _callback_row(key[0], callback, now) for key, callback in wanted.items()})


def _callback_row(organization_id: int, callback: Callback, now: datetime) -> dict[str, Any]:
    return {
        "uid": new_id(),
        "organization_id": organization_id,
        "kind": SubscriptionKind.CALLBACK,
        "endpoint_url": callback.endpoint_url,
        "format": callback.format,
        "event_types": [*callback.event_types],
        "ordered": False,
        "secret": callback.secret,
        "signature": SignatureScheme.SYMMETRIC,
        "fingerprint": callback.fingerprint,
        "is_active": True,
        "created_at": now,
        "updated_at": now,
    }
