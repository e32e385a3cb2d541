"""The update path: every update of a task, from a webhook, a poll or a create call, is applied here and nowhere else.

Why one handler for many updates. `Applier.apply` is never called directly: callers pass it to the writer
(`receiver.storage.writer`) as `writer.write(applier.apply, arrival)` and wait. The writer collects what waits, groups
it by handler, and calls `apply` once per transaction with every arrival of the batch, in the order in which they came.
So 1 update and 500 updates take the same number of statements, and one commit. Three things follow for this module:

- Two updates of one task may be in one batch. The second one has to be decided on what the first one changed, although
  nothing of that is written yet: `_Batch` holds the tasks as they are in memory, and one set of changes for each task.
- An arrival's result is returned in its place in the list. If the batch fails, the writer repeats it in halves, so
  `apply` keeps no state of a batch in `self`.
- Callers wait for the commit. An inbound webhook gets its 200 only when its update is on disk.

The steps are the same for every batch: load and lock the tasks (in the order of their keys, so that two processes
cannot deadlock), insert rows for tasks that have none, decide each update, then write the changed rows, advance the
runs, record the events with their deliveries, and insert the receipts.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from models import ReceiptReason, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.transitions import STORED_ONCE, Decision, PollSchedule, TaskState, decide
from receiver.domain.updates import ProviderUpdate
from receiver.events.after_commit import AfterCommit
from receiver.events.record import event_of, record
from receiver.storage.attempts import Ended, ProviderId, attempts_at_provider, keep_attempts
from receiver.storage.receipts import insert_receipts, new_receipt
from receiver.storage.tasks import content_of, new_task
from receiver.storage.transaction import NewEvent, TaskChange, Transaction
from receiver.telemetry import counted, get_logger, updates_applied

log = get_logger("tracking.apply")

_MOST_WORDS_LOGGED = 256
DEFAULT_ORGANIZATION_ID = 1
"""The organization of a task that was created elsewhere and is known only from its webhook: the first organization."""


@dataclass(slots=True, kw_only=True)
class Arrival:
    """An update to be applied. `task_uid` is None where the provider's id alone says which task it is about.

    `body` returns the text that a receipt keeps, without secrets; it is None for an update that is not an inbound
    webhook.
    """

    provider: str
    update: ProviderUpdate
    task_uid: str | None = None
    body: Callable[[], str] | None = None
    organization_id: int = DEFAULT_ORGANIZATION_ID
    """The organization of the task, if this update creates it."""
    metadata: dict[str, Any] | None = None
    """The metadata of the task, if this update creates it."""


@dataclass(slots=True)
class Applied:
    """What an update did. `status` is the task's status afterwards; `changed` says whether there is an event."""

    task_uid: str
    status: str
    changed: bool
    receipt: ReceiptReason | None = None


class RunAdvancer(Protocol):
    """Advances runs when the tasks of their steps change. All that `receiver.tracking` knows of `receiver.runs`."""

    async def apply_tasks(self, tx: Transaction, changed: Sequence[TaskState], now: datetime) -> list[NewEvent]:
        """Advance the runs whose steps' tasks changed, in the same transaction; return the events to record."""
        ...


class Applier:
    """Applies updates. One instance per process: its `apply` is the handler by which the writer groups updates."""

    def __init__(self, poll_schedule: PollSchedule, after_commit: AfterCommit, runs: RunAdvancer) -> None:
        self.poll_schedule = poll_schedule
        self.after_commit = after_commit
        self._runs = runs
        self._words_logged: set[str] = set()

    async def apply(self, tx: Transaction, arrivals: Sequence[Arrival]) -> list[Applied | Exception]:
        """Apply the updates in order; the results are in the same order."""
        batch = _Batch(utc_now())
        await _load(tx, arrivals, batch)
        results: list[Applied | Exception] = [self._apply_one(arrival, batch) for arrival in arrivals]
        await _complete_snapshots(tx, batch)
        await self._write(tx, batch)
        return results

    async def _write(self, tx: Transaction, batch: "_Batch") -> None:
        if batch.ended_attempts:
            await keep_attempts(tx, batch.ended_attempts)
        await tx.update_tasks(list(batch.changes.values()))
        if batch.step_events:
            changed = [batch.by_uid[str(event.task_uid)] for event in batch.step_events]
            batch.events += await self._runs.apply_tasks(tx, changed, batch.now)
        await record(tx, batch.events, self.after_commit, batch.now)
        if batch.receipts:
            await insert_receipts(tx, batch.receipts)
        due = [change.values["due_at"] for change in batch.changes.values() if change.values.get("due_at")]
        if due:
            tx.after_commit.append(lambda: self.after_commit.due.set(min(due)))

    def _apply_one(self, arrival: Arrival, batch: "_Batch") -> Applied:
        """Decide one update and note in the batch what is to be written for it."""
        task = batch.find(arrival)
        update = batch.with_attempt(arrival)
        decision = self._decide(arrival, task, update, batch)
        if task is not None and decision.changes:
            if decision.changes.get("attempt", task.attempt) != task.attempt:
                batch.ended_attempts.append(_ended(task, update, batch.now))
            batch.change(task, decision)
            if task.provider_task_id:
                batch.by_provider_id[arrival.provider, task.provider_task_id] = task.uid
        receipt = decision.receipt if arrival.body is not None else None
        if receipt is not None:
            batch.receipts.append(_receipt(arrival, decision, batch.now))
        self._log_unknown_word(arrival)
        counted(updates_applied, update.source, decision.event or (receipt and "receipt") or "nothing").inc()
        if task is None:
            return Applied(str(arrival.task_uid), "", changed=False, receipt=receipt)
        return Applied(task.uid, task.status, decision.event is not None, receipt)

    def _decide(self, arrival: Arrival, task: TaskState | None, update: ProviderUpdate, batch: "_Batch") -> Decision:
        if task is None or batch.is_taken_by_another(arrival, task):
            message = "the provider's task belongs to another task of Ringback"
            return Decision(receipt=ReceiptReason.CONFLICTING, message=message)
        return decide(task, update, now=batch.now, schedule=self.poll_schedule, jitter=random.random())  # noqa: S311

    def _log_unknown_word(self, arrival: Arrival) -> None:
        """Log a status word that the adapter does not know, once per process."""
        word = arrival.update.word
        if arrival.update.status is None and word and word not in self._words_logged:
            if len(self._words_logged) < _MOST_WORDS_LOGGED:
                self._words_logged.add(word)
            log.warning("unknown provider status", provider=arrival.provider, provider_status=word)


_NO_NAMES = {("", None)}


class _Batch:
    """The tasks of one transaction as they are after the updates decided up to now, and what is to be written."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.by_uid: dict[str, TaskState] = {}
        self.by_provider_id: dict[tuple[str, str], str] = {}
        self.changes: dict[int, TaskChange] = {}
        self.events: list[NewEvent] = []
        self.receipts: list[dict[str, Any]] = []
        self.incomplete: dict[int, NewEvent] = {}
        """By the task's key: events of tasks that ended with unchanged content, which the snapshot has to show."""
        self.ended_attempts: list[Ended] = []
        self.superseded: dict[ProviderId, tuple[str, int]] = {}
        """By the provider's id of an attempt that another one followed: the task's id and that attempt's number.

        Only what `_find_superseded` looked up is in it.
        """
        self.step_events: list[NewEvent] = []
        """The events of tasks that are steps of runs."""

    def add(self, loaded: Mapping[str, TaskState]) -> None:
        """Add tasks as they are in the table."""
        self.by_uid.update(loaded)
        for uid, task in loaded.items():
            if task.provider_task_id is not None:
                self.by_provider_id[task.provider, task.provider_task_id] = uid

    def find(self, arrival: Arrival) -> TaskState | None:
        """Return the task that an update is about, None if it has no row."""
        uid = arrival.task_uid
        if uid is None:
            name = (arrival.provider, str(arrival.update.provider_task_id))
            uid = self.by_provider_id.get(name) or self.superseded.get(name, (None, 0))[0]
        return None if uid is None else self.by_uid.get(uid)

    def with_attempt(self, arrival: Arrival) -> ProviderUpdate:
        """Return the update; with its attempt's number if its provider's id is that of a superseded attempt."""
        if not self.superseded or arrival.task_uid is not None:
            return arrival.update
        found = self.superseded.get((arrival.provider, str(arrival.update.provider_task_id)))
        if found is None:
            return arrival.update
        return replace(arrival.update, attempt=found[1])

    def is_taken_by_another(self, arrival: Arrival, task: TaskState) -> bool:
        """Whether the provider's task belongs to another task already: two tasks may never share one."""
        if task.provider_task_id is not None:
            return False
        owner = self.by_provider_id.get((arrival.provider, str(arrival.update.provider_task_id)), task.uid)
        return owner != task.uid

    def without_row(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Return one arrival for each task that has no row yet: by its id, or by a provider's id without an owner."""
        missing = [arrival for arrival in arrivals if self.find(arrival) is None]
        chosen: list[Arrival] = []
        taken: set[tuple[str, str | None]] = set(self.by_provider_id)
        # Arrivals with a task's id go first: a row made for the provider's id alone would take that id from them.
        for arrival in sorted(missing, key=lambda arrival: arrival.task_uid is None):
            names = {("", arrival.task_uid), (arrival.provider, arrival.update.provider_task_id)} - _NO_NAMES
            if not names & taken:
                chosen.append(arrival)
                taken |= names
        return chosen

    def change(self, task: TaskState, decision: Decision) -> None:
        """Note what is to be written of a task, and change its state accordingly."""
        values = dict(decision.changes)
        if "due_at" in values:
            values["leased"] = False
        if decision.event is not None:
            event = self._event(task, decision)
            if values.get("ended_at"):
                values["ended_event"] = event.uid
            if decision.keeps_content:
                self.incomplete[task.id] = event
        change = self.changes.get(task.id)
        if change is None:
            change = self.changes[task.id] = TaskChange(task.id, task.status, task.attempt, values)
        else:
            change.values.update(values)
        task.apply_changes(values)

    def _event(self, task: TaskState, decision: Decision) -> NewEvent:
        event = event_of(task, decision, self.now)
        self.events.append(event)
        if task.run_uid is not None:
            self.step_events.append(event)
        return event


async def _load(tx: Transaction, arrivals: Sequence[Arrival], batch: _Batch) -> None:
    """Load and lock the tasks of all updates; insert rows for those that have none."""
    uids = {arrival.task_uid for arrival in arrivals if arrival.task_uid is not None}
    # Also by the provider's ids: a task that has none yet may not get one that belongs to another task.
    provider_ids = {
        (arrival.provider, arrival.update.provider_task_id) for arrival in arrivals if arrival.update.provider_task_id
    }
    batch.add(await tx.load_tasks(uids, provider_ids))
    if missing := batch.without_row(arrivals):
        await _find_superseded(tx, missing, batch)
        await _insert(tx, batch.without_row(arrivals), batch)


async def _find_superseded(tx: Transaction, missing: Sequence[Arrival], batch: _Batch) -> None:
    """Find tasks by the provider's id of an earlier attempt, which their rows no longer have."""
    names = {
        (arrival.provider, str(arrival.update.provider_task_id)) for arrival in missing if arrival.task_uid is None
    }
    if names and (found := await attempts_at_provider(tx, names)):
        batch.superseded.update(found)
        batch.add(await tx.load_tasks({uid for uid, _ in found.values()} - batch.by_uid.keys()))


async def _insert(tx: Transaction, arrivals: Sequence[Arrival], batch: _Batch) -> None:
    """Insert rows for tasks that only the provider knows: created elsewhere, or purged here."""
    if not arrivals:
        return
    uids = [arrival.task_uid or new_id() for arrival in arrivals]
    await tx.insert_tasks([_new_task(arrival, uid, batch.now) for arrival, uid in zip(arrivals, uids, strict=True)])
    batch.add(await tx.load_tasks(uids))
    log.info("tasks created from updates", task_ids=uids)


async def _complete_snapshots(tx: Transaction, batch: _Batch) -> None:
    """Add the stored content to the snapshots of ends that left it unchanged: an event shows the whole task."""
    if not batch.incomplete:
        return
    for key, stored in (await content_of(tx, batch.incomplete)).items():
        known = {**stored, **batch.changes[key].values}
        content = {name: known[name] for name in STORED_ONCE if known[name] is not None}
        batch.incomplete[key].snapshot.update(content)


def _new_task(arrival: Arrival, uid: str, now: datetime) -> dict[str, Any]:
    """Return the row of a task that is known only from this update, which is applied to the row afterwards."""
    update = arrival.update
    attempt, created_at = update.attempt or 1, update.created_at or now
    return new_task(
        uid=uid,
        organization_id=arrival.organization_id,
        provider=arrival.provider,
        model=update.model or "unknown",
        task_type=update.task_type or "unknown",
        input=update.input,
        submission=Submission.ACCEPTED if update.provider_task_id else Submission.UNKNOWN,
        now=now,
        config={name: value for name, value in (update.config or {}).items() if name != "webhook_config"},
        metadata=arrival.metadata,
        attempt=attempt,
        max_attempts=attempt,
        provider_task_id=update.provider_task_id,
        created_at=created_at,
        submitted_at=created_at,
    )


def _ended(task: TaskState, update: ProviderUpdate, now: datetime) -> Ended:
    return Ended(
        task=replace(task),  # a copy: the state becomes that of the next attempt
        status=TaskStatus.FAILED,
        error=update.error,
        started_at=update.started_at,
        ended_at=update.ended_at or now,
    )


def _receipt(arrival: Arrival, decision: Decision, now: datetime) -> dict[str, Any]:
    assert decision.receipt is not None  # noqa: S101 - the caller checks this first
    return new_receipt(
        provider=arrival.provider,
        task_uid=arrival.task_uid,
        provider_task_id=arrival.update.provider_task_id,
        reason=decision.receipt,
        message=decision.message,
        body=arrival.body() if arrival.body is not None else "",
        now=now,
    )
