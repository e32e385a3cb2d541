"""The updates of one transaction: their tasks, loaded and locked, and what is to be written of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from models import Submission
from receiver.domain.decisions import ENDS, STORED_ONCE, Decision
from receiver.domain.ids import new_id
from receiver.domain.task_state import TaskState
from receiver.domain.updates import ProviderUpdate
from receiver.events.record import event_of
from receiver.storage.attempts import Ended, ProviderId, attempts_at_provider
from receiver.storage.tasks import content_of, new_task
from receiver.storage.transaction import NewEvent, TaskChange, Transaction
from receiver.telemetry.log import get_logger, lines_together
from receiver.telemetry.metrics import counted, tasks_ended
from receiver.telemetry.request_ids import current_request_id
from receiver.telemetry.told import TOLD_TIMES
from receiver.telemetry.trace_context import current_trace_context

log = get_logger("tracking.update_batch")

DEFAULT_ORGANIZATION_ID = 1
"""The organization of a task that was created elsewhere and is known only from its webhook: the first organization."""


class Arrival(Struct, kw_only=True):
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
    account_id: int | None = None
    """The account of the task, if this update creates it; and who alone may tell of it, if it names no task of ours."""
    request_id: str | None = field(default_factory=current_request_id)
    """The request that the update came with or follows from. It goes to the event: the writer has no request."""
    trace_context: str | None = field(default_factory=current_trace_context)
    """The trace of that request, for the task, if this update creates it."""
    accepted_at: float | None = None
    """When an inbound webhook was accepted, in seconds of the monotonic clock; None for any other update."""


_OWN_DECISION = "ringback"
"""What ended a task that no provider ended, as the metrics name it."""
_DIGITS = 3
_NO_NAMES = {("", None)}


class UpdateBatch:
    """The tasks of one transaction as they are after the updates decided up to now, and what is to be written."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.by_uid: dict[str, TaskState] = {}
        self.by_provider_id: dict[tuple[str, str], str] = {}
        self.changes: dict[int, TaskChange] = {}
        self.events: list[NewEvent] = []
        self.receipts: list[dict[str, Any]] = []
        self.incomplete: list[tuple[int, NewEvent, dict[str, Any]]] = []
        """A task's key, an event whose snapshot has to show the stored content, and what this batch changed by then."""
        self.ended_attempts: list[Ended] = []
        self.earlier: dict[tuple[str, int], str] = {}
        """By a task's id and the number of an attempt that another one followed: the provider's id that it had."""
        self.superseded: dict[ProviderId, tuple[str, int]] = {}
        """By the provider's id of an attempt that another one followed: the task's id and that attempt's number.

        Only what `_find_superseded` looked up is in it, and the attempts that end in this batch.
        """
        self.step_events: list[NewEvent] = []
        """The events of tasks that are steps of runs."""
        self.ends: list[tuple[TaskState, NewEvent, str]] = []
        """The tasks that ended, as they are now, the event of that, and what brought it, as the metrics name it."""
        self.counts: list[Callable[[], None]] = []
        """Each raises a counter by 1, after the commit: a batch may be decided more than once."""
        self.accepted: list[tuple[str, float]] = []
        """The event that each inbound webhook made, and when that webhook was accepted."""

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

    def is_of_another_account(self, arrival: Arrival, task: TaskState) -> bool:
        """Whether the update came from another provider, or only its id leads to the task and not its account.

        The token in a webhook's path is good at the addresses of all providers, and not all of them sign: what proves
        nothing for the task's own provider must not be believed because another one was named.
        """
        is_account_s = arrival.task_uid is not None or arrival.account_id == task.account_id
        return arrival.provider != task.provider or not is_account_s

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

    def change(self, task: TaskState, decision: Decision, arrival: Arrival | None = None) -> None:
        """Note what is to be written of a task, and change its state accordingly.

        `arrival` brought the decision; None for one of Ringback's own.
        """
        values = dict(decision.changes)
        if "due_at" in values:
            values["leased"] = False
        event = self._event(task, decision, arrival) if decision.event is not None else None
        if event is not None and decision.event in ENDS:
            values["ended_event"] = event.uid
            self.ends.append((task, event, _brought_by(arrival)))
        change = self.changes.get(task.id)
        if change is None:
            change = self.changes[task.id] = TaskChange(task.id, task.status, task.attempt, values)
        else:
            change.values.update(values)
        if event is not None and decision.keeps_content:
            changed = {name: change.values[name] for name in STORED_ONCE if name in change.values}
            self.incomplete.append((task.id, event, changed))
        if task.provider_task_id is not None and values.get("attempt", task.attempt) != task.attempt:
            self.superseded[task.provider, task.provider_task_id] = (task.uid, task.attempt)
        task.apply_changes(values)

    def name_earlier(self, task: TaskState, update: ProviderUpdate) -> None:
        """Note the provider's id of an attempt that another one has followed: it may not have been known."""
        if update.provider_task_id and update.attempt is not None and update.attempt < task.attempt:
            self.earlier[task.uid, update.attempt] = update.provider_task_id

    def _event(self, task: TaskState, decision: Decision, arrival: Arrival | None) -> NewEvent:
        event = event_of(task, decision, self.now, None if arrival is None else arrival.request_id)
        self.events.append(event)
        if task.run_uid is not None:
            self.step_events.append(event)
        if arrival is not None and arrival.accepted_at is not None:
            self.accepted.append((event.uid, arrival.accepted_at))
        return event

    def note_accepted(self) -> None:
        """Note when the webhooks were accepted whose events are to be told. Called after the commit."""
        for event_uid, accepted_at in self.accepted:
            TOLD_TIMES.accepted(event_uid, accepted_at)

    def count(self) -> None:
        """Count what the updates did. Called after the commit."""
        for add in self.counts:
            add()

    def report_ends(self) -> None:
        """Count each task that ended, and write a log record of it. Called after the commit."""
        with lines_together() if len(self.ends) > 1 else nullcontext():
            for task, event, brought_by in self.ends:
                self._report_end(task, event, brought_by)

    def _report_end(self, task: TaskState, event: NewEvent, brought_by: str) -> None:
        snapshot = event.snapshot
        counted(tasks_ended, task.provider, snapshot["status"], brought_by).inc()
        known = {
            "error_code": (snapshot.get("error") or {}).get("code"),
            "run_id": task.run_uid,
            "request_id": event.request_id,
        }
        log.info(
            "task ended",
            task_id=task.uid,
            provider=task.provider,
            model=task.model,
            state=snapshot["status"],
            attempt=snapshot["attempt"],
            source=snapshot.get("source"),
            seconds=_seconds_between(task.created_at, self.now),
            **{name: value for name, value in known.items() if value is not None},
        )


async def load_tasks(tx: Transaction, arrivals: Sequence[Arrival], batch: UpdateBatch) -> None:
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


async def _find_superseded(tx: Transaction, missing: Sequence[Arrival], batch: UpdateBatch) -> None:
    """Find tasks by the provider's id of an earlier attempt, which their rows no longer have."""
    names = {
        (arrival.provider, str(arrival.update.provider_task_id)) for arrival in missing if arrival.task_uid is None
    }
    if names and (found := await attempts_at_provider(tx, names)):
        batch.superseded.update(found)
        batch.add(await tx.load_tasks({uid for uid, _ in found.values()} - batch.by_uid.keys()))


async def _insert(tx: Transaction, arrivals: Sequence[Arrival], batch: UpdateBatch) -> None:
    """Insert rows for tasks that only the provider knows: created elsewhere, or purged here."""
    if not arrivals:
        return
    uids = [arrival.task_uid or new_id() for arrival in arrivals]
    await tx.insert_tasks([_new_task(arrival, uid, batch.now) for arrival, uid in zip(arrivals, uids, strict=True)])
    batch.add(await tx.load_tasks(uids))
    log.info("tasks created from updates", task_ids=uids)


async def complete_snapshots(tx: Transaction, batch: UpdateBatch) -> None:
    """Add the stored content to the snapshots of events that left it unchanged: an event shows the whole task."""
    if not batch.incomplete:
        return
    stored = await content_of(tx, {key for key, _, _ in batch.incomplete})
    for key, event, changed in batch.incomplete:
        known = {**stored[key], **changed}
        event.snapshot.update({name: value for name, value in known.items() if value is not None})


def _brought_by(arrival: Arrival | None) -> str:
    return arrival.update.source if arrival is not None and arrival.update.by_provider else _OWN_DECISION


def _seconds_between(start: datetime | None, end: datetime) -> float | None:
    return None if start is None else round((end - start).total_seconds(), _DIGITS)


def _new_task(arrival: Arrival, uid: str, now: datetime) -> dict[str, Any]:
    """Return the row of a task that is known only from this update, which is applied to the row afterwards."""
    update = arrival.update
    attempt = update.attempt or 1
    # Not later than now, whatever the provider's clock says: the clean-up takes rows behind a young one to be younger.
    created_at = min(update.created_at or now, now)
    return new_task(
        uid=uid,
        organization_id=arrival.organization_id,
        provider=arrival.provider,
        account_id=arrival.account_id,
        model=update.model or "unknown",
        task_type=update.task_type or "unknown",
        input=update.input,
        submission=Submission.ACCEPTED if update.provider_task_id else Submission.UNKNOWN,
        now=now,
        config={name: value for name, value in (update.config or {}).items() if name != "webhook_config"},
        metadata=arrival.metadata,
        trace_context=arrival.trace_context,
        attempt=attempt,
        max_attempts=attempt,
        provider_task_id=update.provider_task_id,
        handle=update.handle,
        created_at=created_at,
        submitted_at=created_at,
    )
