"""The update path: every update of a task, from a webhook, a poll or a create call, is applied here and nowhere else.

Why one handler for many updates. `Applier.apply` is never called directly: callers pass it to the writer
(`receiver.storage.writer`) as `writer.write(applier.apply, arrival)` and wait. The writer collects what waits, groups
it by handler, and calls `apply` once per transaction with every arrival of the batch, in the order in which they came.
So 1 update and 500 updates take the same number of statements, and one commit. Three things follow for this module:

- Two updates of one task may be in one batch. The second one has to be decided on what the first one changed, although
  nothing of that is written yet: `UpdateBatch` holds the tasks as they are in memory, and one set of changes for each.
- An arrival's result is returned in its place in the list. If the batch fails, the writer repeats it in halves, so
  `apply` keeps no state of a batch in `self`.
- Callers wait for the commit. An inbound webhook gets its 200 only when its update is on disk.

The steps are the same for every batch: load and lock the tasks (in the order of their keys, so that two processes
cannot deadlock), insert rows for tasks that have none, decide each update, then write the changed rows, advance the
runs, record the events with their deliveries, and insert the receipts.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from models import ReceiptReason, TaskStatus
from receiver.clock import utc_now
from receiver.domain.decisions import Decision
from receiver.domain.schedules import PollSchedule
from receiver.domain.task_state import TaskState
from receiver.domain.transitions import decide
from receiver.domain.updates import ProviderUpdate
from receiver.events.after_commit import AfterCommit
from receiver.events.record import record
from receiver.storage.attempts import Ended, keep_attempts, name_attempt
from receiver.storage.optimistic import may_be_optimistic
from receiver.storage.receipts import insert_receipts, new_receipt
from receiver.storage.transaction import NewEvent, Transaction
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, unknown_statuses, updates_applied
from receiver.tracking.update_batch import Arrival, UpdateBatch, complete_snapshots, load_tasks

log = get_logger("tracking.apply")

_MOST_WORDS = 256
_TAKEN = Decision(receipt=ReceiptReason.CONFLICTING, message="the provider's task belongs to another task of Ringback")


class Applied(Struct):
    """What an update did. `status` is the task's status afterwards; `changed` says whether there is an event.

    `is_taken` says that it did nothing because the provider's task belongs to another task of Ringback.
    """

    task_uid: str
    status: str
    changed: bool
    receipt: ReceiptReason | None = None
    is_taken: bool = False
    trace_context: str | None = None
    """The trace that the task's create belongs to."""


class RunAdvancer(Protocol):
    """Advances runs when the tasks of their steps change. All that `receiver.tracking` knows of `receiver.runs`."""

    async def apply_tasks(
        self, tx: Transaction, changed: Sequence[TaskState], now: datetime, written: Mapping[str, Mapping[str, Any]]
    ) -> list[NewEvent]:
        """Advance the runs whose steps' tasks changed, in the same transaction; return the events to record.

        `written` has the columns of each task that were written in it, by the task's id.
        """
        ...


class Applier:
    """Applies updates. One instance per process: its `apply` is the handler by which the writer groups updates.

    `least_of` returns how far apart looks at one task of a provider must be, in seconds.
    """

    def __init__(
        self,
        poll_schedule: PollSchedule,
        after_commit: AfterCommit,
        runs: RunAdvancer,
        *,
        least_of: Callable[[str], float] = lambda _provider: 0.0,
    ) -> None:
        self.poll_schedule = poll_schedule
        self._least_of = least_of
        self._schedules: dict[str, PollSchedule] = {}
        self.after_commit = after_commit
        self._runs = runs
        self._words: set[str] = set()

    def schedule_of(self, provider: str) -> PollSchedule:
        """Return when to poll the tasks of a provider."""
        if provider not in self._schedules:
            self._schedules[provider] = replace(self.poll_schedule, least=self._least_of(provider))
        return self._schedules[provider]

    @may_be_optimistic
    async def apply(self, tx: Transaction, arrivals: Sequence[Arrival]) -> list[Applied | Exception]:
        """Apply the updates in order; the results are in the same order."""
        batch = UpdateBatch(utc_now())
        await load_tasks(tx, arrivals, batch)
        results: list[Applied | Exception] = [self._apply_one(arrival, batch) for arrival in arrivals]
        await complete_snapshots(tx, batch)
        await self._write(tx, batch)
        return results

    async def _write(self, tx: Transaction, batch: UpdateBatch) -> None:
        if batch.ended_attempts:
            await keep_attempts(tx, batch.ended_attempts)
        for (uid, number), provider_task_id in batch.earlier.items():
            await name_attempt(tx, uid, number, provider_task_id)
        await tx.update_tasks(list(batch.changes.values()))
        if batch.step_events:
            changed = [batch.by_uid[str(event.task_uid)] for event in batch.step_events]
            causes = {event.run_uid: event.request_id for event in batch.step_events}
            written = {task.uid: batch.changes[task.id].values for task in changed}
            for event in await self._runs.apply_tasks(tx, changed, batch.now, written):
                event.request_id = causes.get(event.run_uid)
                batch.events.append(event)
        if batch.accepted:
            # First, for a delivery may have begun when the next thing after the commit is called.
            tx.after_commit.append(batch.note_accepted)
        await record(tx, batch.events, self.after_commit, batch.now)
        tx.after_commit.append(batch.count)
        if batch.ends:
            tx.bookkeeping.append(batch.report_ends)
        if batch.receipts:
            await insert_receipts(tx, batch.receipts)
        due = [change.values["due_at"] for change in batch.changes.values() if change.values.get("due_at")]
        if due:
            tx.after_commit.append(lambda: self.after_commit.due.set(min(due)))

    def _apply_one(self, arrival: Arrival, batch: UpdateBatch) -> Applied:
        """Decide one update and note in the batch what is to be written for it."""
        named = task = batch.find(arrival)
        update = batch.with_attempt(arrival)
        if task is not None and batch.is_of_another_account(arrival, task):
            task = None
        is_taken = task is None or batch.is_taken_by_another(arrival, task)
        decision = _TAKEN if task is None or is_taken else self._decide(task, update, batch.now)
        if task is not None and decision.changes:
            if decision.changes.get("attempt", task.attempt) != task.attempt:
                batch.ended_attempts.append(_ended(task, update, batch.now))
            batch.change(task, decision, arrival)
            if task.provider_task_id:
                batch.by_provider_id[arrival.provider, task.provider_task_id] = task.uid
        if task is not None and decision.receipt == ReceiptReason.SUPERSEDED:
            batch.name_earlier(task, update)
        receipt = decision.receipt if arrival.body is not None else None
        if receipt is not None:
            owner = task if arrival.task_uid is None else named
            batch.receipts.append(_receipt(arrival, owner, decision, batch.now))
        self._count_unknown_word(arrival, batch)
        what = decision.event or (receipt and "receipt") or "nothing"
        batch.counts.append(counted(updates_applied, update.source, what).inc)
        if task is None:
            return Applied(str(arrival.task_uid), "", changed=False, receipt=receipt, is_taken=True)
        return Applied(task.uid, task.status, decision.event is not None, receipt, is_taken, task.trace_context)

    def _decide(self, task: TaskState, update: ProviderUpdate, now: datetime) -> Decision:
        return decide(task, update, now=now, schedule=self.schedule_of(task.provider), jitter=random.random())  # noqa: S311

    def _count_unknown_word(self, arrival: Arrival, batch: UpdateBatch) -> None:
        """Let a status word be counted that the adapter does not know; log it once per process."""
        word = arrival.update.word
        if arrival.update.status is not None or not word:
            return
        if word not in self._words:
            if len(self._words) < _MOST_WORDS:
                self._words.add(word)
            log.warning("unknown provider status", provider=arrival.provider, provider_status=word)
        # A provider may invent words without end: those after the first ones share a counter.
        known = word if word in self._words else "other"
        batch.counts.append(counted(unknown_statuses, arrival.provider, known).inc)


def _ended(task: TaskState, update: ProviderUpdate, now: datetime) -> Ended:
    return Ended(
        task=replace(task),  # a copy: the state becomes that of the next attempt
        status=TaskStatus.FAILED,
        error=update.error,
        started_at=update.started_at,
        ended_at=update.ended_at or now,
    )


def _receipt(arrival: Arrival, task: TaskState | None, decision: Decision, now: datetime) -> dict[str, Any]:
    assert decision.receipt is not None  # noqa: S101 - the caller checks this first
    return new_receipt(
        organization_id=arrival.organization_id if task is None else task.organization_id,
        provider=arrival.provider,
        task_uid=arrival.task_uid if task is None else task.uid,
        provider_task_id=arrival.update.provider_task_id,
        reason=decision.receipt,
        message=decision.message,
        body=arrival.body() if arrival.body is not None else "",
        now=now,
    )
