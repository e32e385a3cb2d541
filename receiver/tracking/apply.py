"""The one door: every update of a task comes through here, whatever way it came.

In one transaction, for all updates that wait: their tasks are loaded and locked, each update is decided, and the
changed rows, the events, the deliveries and the receipts are written.
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
"""Whose a task is that only its provider told us of: the first organization's, there from the start."""


@dataclass(slots=True, kw_only=True)
class Arrival:
    """An update on its way in. `task_uid` is None where only the provider's id tells which task it speaks of.

    `body` gives the text that a receipt keeps, without secrets; None for what is not an inbound webhook.
    """

    provider: str
    update: ProviderUpdate
    task_uid: str | None = None
    body: Callable[[], str] | None = None
    organization_id: int = DEFAULT_ORGANIZATION_ID
    metadata: dict[str, Any] | None = None
    """The metadata of a task that is made of it."""


@dataclass(slots=True)
class Applied:
    """What an update did. `status` is the task's state afterwards."""

    task_uid: str
    status: str
    changed: bool
    receipt: ReceiptReason | None = None


class RunAdvancer(Protocol):
    """Moves runs forward when the tasks of their steps change. `tracking` knows no more of runs than this."""

    async def follow(self, tx: Transaction, changed: Sequence[TaskState], now: datetime) -> list[NewEvent]:
        """Advance the runs whose steps' tasks changed, in their transaction; return the events to record."""
        ...


class Applier:
    """Applies updates. One instance a process: its `apply` is the handler that the writer groups by."""

    def __init__(self, poll_schedule: PollSchedule, after_commit: AfterCommit, runs: RunAdvancer) -> None:
        self.poll_schedule = poll_schedule
        self.after_commit = after_commit
        self._runs = runs
        self._words_logged: set[str] = set()

    async def apply(self, tx: Transaction, arrivals: Sequence[Arrival]) -> list[Applied | Exception]:
        """Apply the updates in order; the results are in the same order."""
        now = utc_now()
        batch = _Batch(now)
        await self._load(tx, arrivals, batch)
        results: list[Applied | Exception] = [self._decide(arrival, batch) for arrival in arrivals]
        await self._show_what_stays(tx, batch)
        if batch.ended_attempts:
            await keep_attempts(tx, batch.ended_attempts)
        await tx.update_tasks(list(batch.changes.values()))
        if batch.of_runs:
            batch.events += await self._runs.follow(
                tx, [batch.by_uid[str(event.task_uid)] for event in batch.of_runs], now
            )
        await record(tx, batch.events, self.after_commit, now)
        if batch.receipts:
            await insert_receipts(tx, batch.receipts)
        self._watch_due(tx, batch)
        return results

    async def _load(self, tx: Transaction, arrivals: Sequence[Arrival], batch: "_Batch") -> None:
        uids = {arrival.task_uid for arrival in arrivals if arrival.task_uid is not None}
        # The provider's ids besides: a task that has none yet would get one that another task may have.
        provider_ids = {
            (arrival.provider, arrival.update.provider_task_id)
            for arrival in arrivals
            if arrival.update.provider_task_id
        }
        batch.take(await tx.load_tasks(uids, provider_ids))
        if missing := batch.to_be_made(arrivals):
            await self._find_superseded(tx, missing, batch)
            await self._make(tx, batch.to_be_made(arrivals), batch)

    async def _find_superseded(self, tx: Transaction, missing: Sequence[Arrival], batch: "_Batch") -> None:
        """Find the tasks of which nothing tells but the provider's id for an attempt that another one followed."""
        names = {
            (arrival.provider, str(arrival.update.provider_task_id)) for arrival in missing if arrival.task_uid is None
        }
        if names and (found := await attempts_at_provider(tx, names)):
            batch.superseded.update(found)
            batch.take(await tx.load_tasks({uid for uid, _ in found.values()} - batch.by_uid.keys()))

    async def _show_what_stays(self, tx: Transaction, batch: "_Batch") -> None:
        """Fill the snapshots of ends that left the content as it was: the event shows the task as it then is."""
        if not batch.kept:
            return
        for key, stored in (await content_of(tx, batch.kept)).items():
            known = {**stored, **batch.changes[key].values}
            content = {name: known[name] for name in STORED_ONCE if known[name] is not None}
            batch.kept[key].snapshot.update(content)

    async def _make(self, tx: Transaction, arrivals: Sequence[Arrival], batch: "_Batch") -> None:
        """Make rows for tasks that the provider knows and we do not: created elsewhere, or gone from here."""
        if not arrivals:
            return
        uids = [arrival.task_uid or new_id() for arrival in arrivals]
        await tx.insert_tasks([_new_task(arrival, uid, batch.now) for arrival, uid in zip(arrivals, uids, strict=True)])
        batch.take(await tx.load_tasks(uids))
        log.info("tasks adopted", tasks=uids)

    def _decide(self, arrival: Arrival, batch: "_Batch") -> Applied:
        task = batch.find(arrival)
        update = batch.with_attempt(arrival)
        if task is None or batch.is_anothers(arrival, task):
            decision = Decision(receipt=ReceiptReason.CONFLICTING, message="another task has this provider task")
        else:
            decision = decide(task, update, now=batch.now, schedule=self.poll_schedule, jitter=random.random())  # noqa: S311
        if task is not None and decision.changes:
            if decision.changes.get("attempt", task.attempt) != task.attempt:
                batch.ended_attempts.append(_ended(task, update, batch.now))
            batch.change(task, decision)
            if task.provider_task_id:
                batch.by_provider_id[arrival.provider, task.provider_task_id] = task.uid
        receipt = decision.receipt if arrival.body is not None else None
        if receipt is not None:
            batch.receipts.append(_receipt(arrival, decision, batch.now))
        self._log_word(arrival)
        counted(updates_applied, update.source, decision.event or (receipt and "receipt") or "nothing").inc()
        if task is None:
            return Applied(str(arrival.task_uid), "", changed=False, receipt=receipt)
        return Applied(task.uid, task.status, decision.event is not None, receipt)

    def _log_word(self, arrival: Arrival) -> None:
        word = arrival.update.word
        if arrival.update.status is None and word and word not in self._words_logged:
            if len(self._words_logged) < _MOST_WORDS_LOGGED:
                self._words_logged.add(word)
            log.warning("a status word that nobody knows", provider=arrival.provider, word=word)

    def _watch_due(self, tx: Transaction, batch: "_Batch") -> None:
        due = [change.values["due_at"] for change in batch.changes.values() if change.values.get("due_at")]
        if due:
            tx.after_commit.append(lambda: self.after_commit.due.set(min(due)))


_NAMELESS = {("", None)}


class _Batch:
    """The tasks of one transaction as they are now, and what is to be written of them."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.by_uid: dict[str, TaskState] = {}
        self.by_provider_id: dict[tuple[str, str], str] = {}
        self.changes: dict[int, TaskChange] = {}
        self.events: list[NewEvent] = []
        self.receipts: list[dict[str, Any]] = []
        self.kept: dict[int, NewEvent] = {}
        """The events of ends that left their task's content as it was, by the task's key."""
        self.ended_attempts: list[Ended] = []
        self.superseded: dict[ProviderId, tuple[str, int]] = {}
        """The task and its attempt by the provider's id for one that another followed; known only if asked for."""
        self.of_runs: list[NewEvent] = []
        """The events of tasks that are steps of runs."""

    def take(self, loaded: Mapping[str, TaskState]) -> None:
        """Note tasks as they are in the table."""
        self.by_uid.update(loaded)
        for uid, task in loaded.items():
            if task.provider_task_id is not None:
                self.by_provider_id[task.provider, task.provider_task_id] = uid

    def find(self, arrival: Arrival) -> TaskState | None:
        uid = arrival.task_uid
        if uid is None:
            name = (arrival.provider, str(arrival.update.provider_task_id))
            uid = self.by_provider_id.get(name) or self.superseded.get(name, (None, 0))[0]
        return None if uid is None else self.by_uid.get(uid)

    def with_attempt(self, arrival: Arrival) -> ProviderUpdate:
        """Return the update, with the attempt that it speaks of where that was found to be a superseded one."""
        if not self.superseded or arrival.task_uid is not None:
            return arrival.update
        found = self.superseded.get((arrival.provider, str(arrival.update.provider_task_id)))
        if found is None:
            return arrival.update
        return replace(arrival.update, attempt=found[1])

    def is_anothers(self, arrival: Arrival, task: TaskState) -> bool:
        """Say whether the provider's task is that of another task: no two may share one."""
        if task.provider_task_id is not None:
            return False
        owner = self.by_provider_id.get((arrival.provider, str(arrival.update.provider_task_id)), task.uid)
        return owner != task.uid

    def to_be_made(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Return what has no row yet: one for each task, and for each provider's task that nobody has."""
        missing = [arrival for arrival in arrivals if self.find(arrival) is None]
        made: list[Arrival] = []
        taken: set[tuple[str, str | None]] = set(self.by_provider_id)
        # Those that name their task go first: a row made by the provider's id alone would take it from them.
        for arrival in sorted(missing, key=lambda arrival: arrival.task_uid is None):
            names = {("", arrival.task_uid), (arrival.provider, arrival.update.provider_task_id)} - _NAMELESS
            if not names & taken:
                made.append(arrival)
                taken |= names
        return made

    def change(self, task: TaskState, decision: Decision) -> None:
        """Note what is to be written of a task, and take it over into its state."""
        values = dict(decision.changes)
        if "due_at" in values:
            values["leased"] = False
        if decision.event is not None:
            event = self._event(task, decision)
            if values.get("ended_at"):
                values["ended_event"] = event.uid
            if decision.keeps_content:
                self.kept[task.id] = event
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
            self.of_runs.append(event)
        return event


def _new_task(arrival: Arrival, uid: str, now: datetime) -> dict[str, Any]:
    """Return the row of a task that only its update tells of; the update itself is applied to it afterwards."""
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
        task=replace(task),  # as it is now: the next attempt takes its place
        status=TaskStatus.FAILED,
        error=update.error,
        started_at=update.started_at,
        ended_at=update.ended_at or now,
    )


def _receipt(arrival: Arrival, decision: Decision, now: datetime) -> dict[str, Any]:
    assert decision.receipt is not None  # noqa: S101 - the caller asked
    return new_receipt(
        provider=arrival.provider,
        task_uid=arrival.task_uid,
        provider_task_id=arrival.update.provider_task_id,
        reason=decision.receipt,
        message=decision.message,
        body=arrival.body() if arrival.body is not None else "",
        now=now,
    )
