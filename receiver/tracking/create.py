"""Creating tasks: the intent is on disk before the provider is called."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any

from sqlalchemy import insert, select

from models import TASK_EVENTS, DeliveryFormat, EventType, Submission, SubscriptionKind, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.events.record import AfterCommit, record
from receiver.storage.tables import subscriptions
from receiver.storage.transaction import NewEvent, Transaction

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
        self._announcer = after_commit
        self._lease = timedelta(seconds=lease_seconds)

    async def create(self, tx: Transaction, requests: Sequence[TaskRequest]) -> list[Created | Exception]:
        """Insert a row and a `task.created` for each request; the results are in the same order."""
        now = utc_now()
        due = now + self._lease
        first = _First(Submission.SENDING, submitted_at=now, leased=True)
        created = await self._insert(tx, requests, first, [due] * len(requests), now)
        tx.after_commit.append(lambda: self._announcer.due.set(due))
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
        tx.after_commit.append(lambda: self._announcer.due.set(now))
        return [list(islice(created, len(bulk))) for bulk in bulks]

    async def _insert(
        self,
        tx: Transaction,
        requests: Sequence[TaskRequest],
        first: "_First",
        due: Sequence[datetime],
        now: datetime,
    ) -> list[Created]:
        callbacks = await _callbacks(tx, requests, now)
        callback_ids = [_callback_id(request, callbacks) for request in requests]
        rows = [
            _row(request, first, callback_id, due_at, now)
            for request, callback_id, due_at in zip(requests, callback_ids, due, strict=True)
        ]
        keys = await tx.insert_tasks(rows)
        events = [
            _created_event(request, first, key, callback_id, now)
            for request, key, callback_id in zip(requests, keys, callback_ids, strict=True)
        ]
        await record(tx, events, self._announcer, now)
        return [Created(key, request.uid) for key, request in zip(keys, requests, strict=True)]


@dataclass(frozen=True, slots=True)
class _First:
    """What is the same for all tasks that are created in one way."""

    submission: Submission
    submitted_at: datetime | None = None
    leased: bool = False
    bulk: bool = False


def _row(
    request: TaskRequest, first: _First, callback_id: int | None, due_at: datetime, now: datetime
) -> dict[str, Any]:
    return {
        "uid": request.uid,
        "organization_id": request.organization_id,
        "provider": request.provider,
        "model": request.model,
        "task_type": request.task_type,
        "bulk": first.bulk,
        "status": TaskStatus.QUEUED,
        "submission": first.submission,
        "attempt": 1,
        "max_attempts": request.max_attempts,
        "backoff_seconds": request.backoff_seconds,
        "progress": 0,
        "revision": "",
        "input": request.input,
        "config": request.config,
        "metadata": request.metadata,
        "callback_id": callback_id,
        "created_at": now,
        "updated_at": now,
        "submitted_at": first.submitted_at,
        "last_update_at": now,
        "due_at": due_at,
        "leased": first.leased,
        "poll_count": 0,
    }


def _callback_id(request: TaskRequest, callbacks: dict[tuple[int, str], int]) -> int | None:
    if request.callback is None:
        return None
    return callbacks[request.organization_id, request.callback.fingerprint]


def _created_event(request: TaskRequest, first: _First, key: int, callback_id: int | None, now: datetime) -> NewEvent:
    return NewEvent(
        uid=new_id(),
        organization_id=request.organization_id,
        task_id=key,
        task_uid=request.uid,
        type=EventType.TASK_CREATED,
        snapshot={"status": TaskStatus.QUEUED, "attempt": 1, "submission": first.submission},
        created_at=now,
        callback_id=callback_id,
        model=request.model,
        task_type=request.task_type,
        metadata=request.metadata,
    )


async def _callbacks(tx: Transaction, requests: Sequence[TaskRequest], now: datetime) -> dict[tuple[int, str], int]:
    """Find, or make, the subscription of each client's own callback: one row for each URL and secret."""
    wanted = {
        (request.organization_id, request.callback.fingerprint): request.callback
        for request in requests
        if request.callback is not None
    }
    if not wanted:
        return {}
    known = await _known(tx, wanted)
    new = [_callback_row(key[0], callback, now) for key, callback in wanted.items() if key not in known]
    if new:
        await tx.execute(insert(subscriptions), new)
        known = await _known(tx, wanted)
    return known


async def _known(tx: Transaction, wanted: dict[tuple[int, str], Callback]) -> dict[tuple[int, str], int]:
    table = subscriptions.c
    found = await tx.execute(
        select(table.organization_id, table.fingerprint, table.id).where(
            table.organization_id.in_({organization_id for organization_id, _ in wanted}),
            table.fingerprint.in_({fingerprint for _, fingerprint in wanted}),
        )
    )
    return {(row.organization_id, row.fingerprint): row.id for row in found}


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
