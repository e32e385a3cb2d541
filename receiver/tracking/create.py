"""Creating tasks: the intent is on disk before the provider is called."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any

from models import TASK_EVENTS, DeliveryFormat, EventType, Submission, SubscriptionKind
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.events.after_commit import AfterCommit
from receiver.events.record import record, task_created
from receiver.storage.subscriptions import CallbackKey, callback_keys
from receiver.storage.tasks import new_task
from receiver.storage.transaction import Transaction

CALLBACK_EVENTS = [event for event in TASK_EVENTS if event != EventType.TASK_CREATED]
"""What a client's own `webhook_config` is told of: what PiAPI tells."""
_ONE_AFTER_THE_OTHER = timedelta(microseconds=1)
"""Between the moments at which the tasks of a bulk are due: it keeps their order, and nobody waiting."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A client's own `config.webhook_config`: its secret encrypted, and a keyed hash of both."""

    endpoint_url: str
    secret: str | None
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """What a client asks for, checked."""

    organization_id: int
    provider: str
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


@dataclass(frozen=True, slots=True)
class Created:
    """A task that is on disk: leased to this process, which is to send it now, or waiting for its turn (`bulk`)."""

    id: int
    uid: str


class Creator:
    """Creates tasks. One instance a process: its `create` and `create_bulk` are what the writer groups by."""

    def __init__(self, after_commit: AfterCommit, *, lease_seconds: float) -> None:
        self._after_commit = after_commit
        self._lease = timedelta(seconds=lease_seconds)

    async def create(self, tx: Transaction, requests: Sequence[TaskRequest]) -> list[Created | Exception]:
        """Insert a row and a `task.created` for each request; the results are in the same order."""
        now = utc_now()
        due = now + self._lease
        first = _First(Submission.SENDING, submitted_at=now, leased=True)
        created = await self._insert(tx, requests, first, [due] * len(requests), now)
        tx.after_commit.append(lambda: self._after_commit.due.set(due))
        return list(created)

    async def create_bulk(
        self, tx: Transaction, bulks: Sequence[Sequence[TaskRequest]]
    ) -> list[list[Created] | Exception]:
        """The same for requests that came together, a list for each bulk. They are sent in turn, in their order."""
        now = utc_now()
        first = _First(Submission.WAITING, bulk=True)
        requests = list(chain.from_iterable(bulks))
        due = [now + place * _ONE_AFTER_THE_OTHER for place in range(len(requests))]
        created = iter(await self._insert(tx, requests, first, due, now))
        tx.after_commit.append(lambda: self._after_commit.due.set(now))
        return [list(islice(created, len(bulk))) for bulk in bulks]

    async def _insert(
        self,
        tx: Transaction,
        requests: Sequence[TaskRequest],
        first: "_First",
        due: Sequence[datetime],
        now: datetime,
    ) -> list[Created]:
        callbacks = await _callback_ids(tx, requests, now)
        callback_ids = [_callback_id(request, callbacks) for request in requests]
        rows = [
            _new_task(request, first, callback_id, due_at, now)
            for request, callback_id, due_at in zip(requests, callback_ids, due, strict=True)
        ]
        keys = await tx.insert_tasks(rows)
        events = [task_created(row, key, now) for row, key in zip(rows, keys, strict=True)]
        await record(tx, events, self._after_commit, now)
        return [Created(key, request.uid) for key, request in zip(keys, requests, strict=True)]


@dataclass(frozen=True, slots=True)
class _First:
    """What is the same for all tasks that are created in one way."""

    submission: Submission
    submitted_at: datetime | None = None
    leased: bool = False
    bulk: bool = False


def _new_task(
    request: TaskRequest, first: _First, callback_id: int | None, due_at: datetime, now: datetime
) -> dict[str, Any]:
    return new_task(
        uid=request.uid,
        organization_id=request.organization_id,
        provider=request.provider,
        model=request.model,
        task_type=request.task_type,
        input=request.input,
        submission=first.submission,
        now=now,
        config=request.config,
        metadata=request.metadata,
        callback_id=callback_id,
        bulk=first.bulk,
        max_attempts=request.max_attempts,
        backoff_seconds=request.backoff_seconds,
        submitted_at=first.submitted_at,
        due_at=due_at,
        leased=first.leased,
    )


def _callback_id(request: TaskRequest, callbacks: dict[CallbackKey, int]) -> int | None:
    if request.callback is None:
        return None
    return callbacks[request.organization_id, request.callback.fingerprint]


async def _callback_ids(tx: Transaction, requests: Sequence[TaskRequest], now: datetime) -> dict[CallbackKey, int]:
    """Find or make the subscription of each client's own callback: one row for each URL and secret."""
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
        "format": DeliveryFormat.PIAPI,
        "event_types": CALLBACK_EVENTS,
        "secret": callback.secret,
        "fingerprint": callback.fingerprint,
        "is_active": True,
        "created_at": now,
        "updated_at": now,
    }
