"""Retrying a task on its client's request. Retries after a failure follow from `receiver.tracking.apply`."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from models import TaskStatus
from receiver.clock import utc_now
from receiver.domain import transitions
from receiver.domain.decisions import Decision
from receiver.domain.task_state import TaskState
from receiver.errors import Conflict, NotFound, RingbackError
from receiver.events.after_commit import AfterCommit
from receiver.events.record import event_of, record
from receiver.storage.attempts import Ended, keep_attempts
from receiver.storage.transaction import TaskChange, Transaction
from receiver.telemetry.request_ids import current_request_id


class RetryRequest(Struct, frozen=True):
    """A client's request for another attempt of a task; nothing is done if it is past `past_attempt` already."""

    uid: str
    past_attempt: int | None = None
    request_id: str | None = field(default_factory=current_request_id)

    def was_done(self, task: TaskState) -> bool:
        """Return whether an earlier request has done this one's work."""
        return self.past_attempt is not None and task.attempt > self.past_attempt


_Started = tuple[TaskState, Decision, str | None]
"""A task as it was, what is decided, and the id of the request."""


class Retrier:
    """Starts further attempts. One instance per process: the writer groups by its handler `retry`."""

    def __init__(self, after_commit: AfterCommit) -> None:
        self._after_commit = after_commit

    async def retry(self, tx: Transaction, requests: Sequence[RetryRequest]) -> list[Exception | None]:
        """Set tasks that failed or were cancelled to be sent again.

        The results are in the order of `requests`: None, or `Conflict` or `NotFound` for a task that cannot be retried.
        """
        now = utc_now()
        states = await tx.load_tasks({request.uid for request in requests})
        started: list[_Started] = []
        results: list[Exception | None] = []
        for request in requests:
            uid = request.uid
            if uid in states and request.was_done(states[uid]):
                results.append(None)
                continue
            try:
                started.append((states[uid], _decide(states[uid], now), request.request_id))
            except KeyError:
                results.append(NotFound("the task no longer exists", code="task_not_found", param="task_id"))
            except RingbackError as refusal:
                results.append(refusal)
            else:
                # A second retry of it in this batch then conflicts.
                states[uid] = replace(states[uid], status=TaskStatus.QUEUED)
                results.append(None)
        if started:
            await self._write(tx, started, now)
        return results

    async def _write(self, tx: Transaction, started: Sequence[_Started], now: datetime) -> None:
        await keep_attempts(tx, [Ended(task=task, status=task.status) for task, _, _ in started])
        await tx.update_tasks(
            [
                TaskChange(
                    id=task.id,
                    from_status=task.status,
                    from_attempt=task.attempt,
                    values={**decision.changes, "leased": False},
                )
                for task, decision, _ in started
            ]
        )
        events = [event_of(task, decision, now, request_id) for task, decision, request_id in started]
        await record(tx, events, self._after_commit, now)
        tx.after_commit.append(lambda: self._after_commit.due.set(now))


def _decide(task: TaskState, now: datetime) -> Decision:
    if task.run_uid is not None:
        raise Conflict(f"the task is a step of run {task.run_uid}: retry the run")
    return transitions.retry(task, now)
