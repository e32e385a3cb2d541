"""Doing a task again because its client says so; where its provider failed, `tracking.apply` sees to that."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from models import TaskStatus
from receiver.clock import utc_now
from receiver.domain import transitions
from receiver.domain.transitions import Decision, TaskState
from receiver.errors import Conflict, NotFound, RingbackError
from receiver.events.after_commit import AfterCommit
from receiver.events.record import event_of, record
from receiver.storage.attempts import Ended, keep_attempts
from receiver.storage.transaction import TaskChange, Transaction


class Retrier:
    """Begins further attempts. Its `retry` is the handler that the writer groups by."""

    def __init__(self, after_commit: AfterCommit) -> None:
        self._after_commit = after_commit

    async def retry(self, tx: Transaction, uids: Sequence[str]) -> list[Exception | None]:
        """Have tasks that failed or were cancelled wait to be sent again; a `Conflict` for what cannot be retried."""
        now = utc_now()
        states = await tx.load_tasks(set(uids))
        begun: list[tuple[TaskState, Decision]] = []
        results: list[Exception | None] = []
        for uid in uids:
            try:
                begun.append((states[uid], _decide(states[uid], now)))
            except KeyError:
                results.append(NotFound("the task is gone"))
            except RingbackError as refusal:
                results.append(refusal)
            else:
                states[uid] = replace(states[uid], status=TaskStatus.QUEUED)  # the same again finds it so
                results.append(None)
        if begun:
            await self._write(tx, begun, now)
        return results

    async def _write(self, tx: Transaction, begun: Sequence[tuple[TaskState, Decision]], now: datetime) -> None:
        await keep_attempts(tx, [Ended(task=task, status=task.status) for task, _ in begun])
        await tx.update_tasks(
            [
                TaskChange(
                    id=task.id,
                    from_status=task.status,
                    from_attempt=task.attempt,
                    values={**decision.changes, "leased": False},
                )
                for task, decision in begun
            ]
        )
        await record(tx, [event_of(task, decision, now) for task, decision in begun], self._after_commit, now)
        tx.after_commit.append(lambda: self._after_commit.due.set(now))


def _decide(task: TaskState, now: datetime) -> Decision:
    if task.run_uid is not None:
        raise Conflict(f"the task is a step of run {task.run_uid}: retry the run")
    return transitions.retry(task, now)
