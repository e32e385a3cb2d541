"""Intent first: that a task is being sent is on disk before the provider hears of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from models import Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.transitions import TaskState
from receiver.storage.transaction import TaskChange, Transaction


@dataclass(frozen=True, slots=True)
class Intent:
    """One attempt of a task whose turn has come to be sent."""

    uid: str
    attempt: int


class Intents:
    """Writes intents. Its `write` is the handler that the writer groups by."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease = timedelta(seconds=lease_seconds)

    async def write(self, tx: Transaction, intents: Sequence[Intent]) -> list[bool | Exception]:
        """Mark tasks as being sent, leased to this process anew; False for one that does not wait to be sent any more.

        That is one which was cancelled meanwhile, or whose lease ran out so that another process sends it.
        """
        found = await tx.load_tasks({intent.uid for intent in intents})
        now = utc_now()
        values = {
            "submission": Submission.SENDING,
            "submitted_at": now,
            "due_at": now + self._lease,
            "leased": True,
        }
        changes: dict[str, TaskChange] = {}
        results: list[bool | Exception] = []
        for intent in intents:
            task = found.get(intent.uid)
            is_first = task is not None and task.uid not in changes and _waits(task, intent.attempt)
            if task is not None and is_first:
                changes[task.uid] = TaskChange(
                    id=task.id, from_status=task.status, from_attempt=task.attempt, values=dict(values)
                )
            results.append(is_first)
        await tx.update_tasks(list(changes.values()))
        return results


def _waits(task: TaskState, attempt: int) -> bool:
    return task.attempt == attempt and task.status == TaskStatus.QUEUED and task.submission == Submission.WAITING
