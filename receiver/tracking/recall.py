"""Recalling the tasks of a cancelled run's steps: what the cancel writes of them, and asking their providers.

Why a recall is a row that is due. The answer to a cancel promises that no step of the run is sent any more, and that
what is under way is cancelled where its provider agrees. So all of it is written in the transaction that cancels the
run: tasks that wait to be sent end, the others begin no further attempt, and `cancel_requested_at` says that the
provider is still to be asked. The worker that claims such a task asks it (`receiver.tracking.poll`), again and again
until it answers: a process that dies, a database that fails and a provider that is down only delay the recall.

An intent to send (`receiver.storage.leases.mark_sending`) and a further attempt (`receiver.domain.transitions`) read
the same column on the locked row: whichever of them and the cancel commits first, the other one sees it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from receiver.clock import utc_now
from receiver.domain import transitions
from receiver.domain.task_state import TaskState
from receiver.domain.updates import Source, cancellation
from receiver.events.after_commit import AfterCommit
from receiver.providers import (
    PROVIDER_UNAUTHORIZED,
    CallerKey,
    CallPurpose,
    Cancelled,
    CancelRequested,
    Missing,
    NoAnswer,
    Providers,
    ProviderTask,
    Refused,
)
from receiver.storage.transaction import NewEvent, Transaction
from receiver.telemetry.log import get_logger
from receiver.tracking.call_spans import span_ids, traced_call
from receiver.tracking.conclusions import Conclusions
from receiver.tracking.update_batch import UpdateBatch, complete_snapshots

log = get_logger("tracking.recall")

Believes = Callable[[int, datetime, datetime], bool]
"""Whether a count of answers in a row that the provider has no such task is believed: the count, since when, now."""


class RecalledTasks:
    """Writes what the cancel or the retry of a run changes on the tasks of its steps, in the same transaction."""

    def __init__(self, after_commit: AfterCommit) -> None:
        self._after_commit = after_commit

    async def recall(self, tx: Transaction, tasks: Sequence[TaskState], now: datetime) -> list[NewEvent]:
        """Cancel locked tasks that wait to be sent, and make the others due for their recall; return the events.

        The states change in place.
        """
        batch = UpdateBatch(now)
        for task in tasks:
            decision = transitions.recall(task, now)
            if decision.changes:
                batch.change(task, decision)
        await complete_snapshots(tx, batch)
        await tx.update_tasks(list(batch.changes.values()))
        tx.after_commit.append(batch.report_ends)
        tx.after_commit.append(lambda: self._after_commit.due.set(now))
        return batch.events

    async def resume(self, tx: Transaction, tasks: Sequence[tuple[TaskState, int]], now: datetime) -> None:
        """Give up the recalls of locked tasks; each again has the number of attempts that is given with it."""
        batch = UpdateBatch(now)
        for task, max_attempts in tasks:
            decision = transitions.resume(task, max_attempts)
            if decision.changes:
                batch.change(task, decision)
        await tx.update_tasks(list(batch.changes.values()))


class Recaller:
    """Asks providers to cancel the tasks that are to be recalled.

    `believes_missing` decides when a provider is believed that it has no such task: a new one may not be visible yet.
    """

    def __init__(self, conclusions: Conclusions, providers: Providers, believes_missing: Believes) -> None:
        self._conclusions = conclusions
        self._providers = providers
        self._believes_missing = believes_missing

    async def cancel_unsent(self, task: TaskState) -> None:
        """Cancel a task whose create call, made before its run was cancelled, has created nothing."""
        await self._apply(task, by_provider=False)

    async def recall(self, task: TaskState) -> bool:
        """Ask the provider to cancel a claimed task; return whether that is settled, by its consent or its refusal.

        If not, the task is still to be recalled, and its due time is unchanged. A refusal of Ringback's own key settles
        nothing: it says nothing about the task.
        """
        caller = CallerKey(task.organization_id, CallPurpose.CANCEL)
        provider = await self._providers.of(task.provider, task.account_id)
        call = provider.cancel(ProviderTask.of_state(task), caller=caller)
        match await traced_call("cancel task", call, task.trace_context, **span_ids(task)):
            case Cancelled():
                await self._apply(task, by_provider=True)
                return True
            case CancelRequested():
                await self._give_up(task, "it was asked for")
                return True
            case Refused(status=status, code=code) if code != PROVIDER_UNAUTHORIZED:
                await self._give_up(task, f"HTTP {status}")
                return True
            case Missing() as missing if self._is_missing(task):
                await self._give_up(task, missing.for_log)
                return True
            case Refused(code=code):
                log.warning("recall failed", **_ids(task), error_code=code)
                return False
            case (Missing() | NoAnswer()) as failed:
                log.warning("recall failed", **_ids(task), error=failed.for_log)
                return False

    def _is_missing(self, task: TaskState) -> bool:
        asked_at = task.cancel_requested_at or task.last_update_at
        return self._believes_missing(task.poll_count + 1, asked_at, utc_now())

    async def _give_up(self, task: TaskState, reason: str) -> None:
        """Let the task run to its end. Not a warning: many providers cannot cancel what they have begun."""
        log.info("recall refused", **_ids(task), error=reason)
        await self._conclusions.give_up_recall(task)

    async def _apply(self, task: TaskState, *, by_provider: bool) -> None:
        source = Source.POLL if by_provider else Source.SUBMIT
        await self._conclusions.apply(task, cancellation(source, task.attempt, by_provider=by_provider))


def _ids(task: TaskState) -> dict[str, str | None]:
    return {
        "task_id": task.uid,
        "run_id": task.run_uid,
        "provider": task.provider,
        "provider_task_id": task.provider_task_id,
    }
