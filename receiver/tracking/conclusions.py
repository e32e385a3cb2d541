"""What Ringback itself decides about a task that is due: it fails, it is looked at later, or an update is applied."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
from msgspec.structs import replace

from models import Submission
from receiver.clock import utc_now
from receiver.domain.schedules import later_look, look_after_silence
from receiver.domain.task_state import TaskState
from receiver.domain.updates import ProviderUpdate, Source, own_failure
from receiver.storage.leases import LaterLook, Postponement, plan_later_looks, postpone
from receiver.storage.recalls import RefusedRecall, give_up_recalls
from receiver.storage.writer import Writer
from receiver.telemetry.log import get_logger
from receiver.tracking.apply import Applied, Applier
from receiver.tracking.update_batch import Arrival

log = get_logger("tracking.conclusions")


class Conclusions:
    """Writes decisions about tasks. Each is invalid if the task has received an update since it was drawn."""

    def __init__(self, writer: Writer, applier: Applier) -> None:
        self._writer = writer
        self._applier = applier

    async def apply(self, task: TaskState, update: ProviderUpdate, *, keeps_receipt: bool = False) -> Applied:
        """Apply an update to the task's present attempt; with `keeps_receipt`, one that is not applied is kept."""
        arrival = Arrival(
            provider=task.provider,
            task_uid=task.uid,
            update=update if update.attempt == task.attempt else replace(update, attempt=task.attempt),
            body=receipt_body(update) if keeps_receipt else None,
        )
        return await self._writer.write(self._applier.apply, arrival, bounded=False, organization=task.organization_id)

    async def fail(self, task: TaskState, code: str, message: str, detail: Any = None) -> None:
        """Fail a task by Ringback's own decision. `message` may repeat the provider's words, so no log has it."""
        log.warning("task failed by Ringback", task_id=task.uid, provider=task.provider, error_code=code)
        failure = own_failure(Source.POLL, code, message, detail=detail, last_update_at=task.last_update_at)
        await self.apply(task, failure)

    async def postpone(self, task: TaskState, submission: Submission, delay: float) -> None:
        """Act on the task again in `delay` seconds."""
        due_at = utc_now() + timedelta(seconds=delay)
        item = Postponement(
            uid=task.uid,
            attempt=task.attempt,
            submission_was=Submission(task.submission),
            submission=submission,
            poll_count=task.poll_count + 1,
            due_at=due_at,
            cancel_requested_at=task.cancel_requested_at,
            missing_count=task.missing_count,
            missing_since=task.missing_since,
            last_update_at=task.last_update_at,
        )
        await self._writer.write(postpone, item, bounded=False)
        self._applier.after_commit.due.set(due_at)

    async def give_up_recall(self, task: TaskState) -> None:
        """Let a task that was to be recalled run to its end; it is polled like any other."""
        assert task.cancel_requested_at is not None  # noqa: S101 - only such tasks are recalled
        due_at = self._applier.schedule_of(task.provider).after_update(utc_now())
        refused = RefusedRecall(task.uid, task.attempt, task.cancel_requested_at, due_at)
        await self._writer.write(give_up_recalls, refused, bounded=False)
        self._applier.after_commit.due.set(due_at)

    async def look_later(self, task: TaskState, *, is_answered: bool) -> None:
        """Plan the next look at a task that Ringback ended: `is_answered` says whether the one now was."""
        now = utc_now()
        looks = task.poll_count + is_answered
        later = later_look(looks, task.last_update_at, now)
        await self._plan(task, looks, later if is_answered else look_after_silence(task.last_update_at, now))

    async def look_no_more(self, task: TaskState) -> None:
        """End the looks at a task that Ringback ended: the provider has ended it too."""
        await self._plan(task, task.poll_count, None)

    async def _plan(self, task: TaskState, looks: int, due_at: datetime | None) -> None:
        item = LaterLook(
            uid=task.uid, attempt=task.attempt, looks=looks, due_at=due_at, last_update_at=task.last_update_at
        )
        await self._writer.write(plan_later_looks, item, bounded=False)
        if due_at is not None:
            self._applier.after_commit.due.set(due_at)


def receipt_body(update: ProviderUpdate) -> Callable[[], str]:
    """Return what a receipt keeps of an update that came as no webhook: what the provider said of its task, as JSON."""

    def text() -> str:
        said = {
            "task_id": update.provider_task_id,
            "status": update.status or update.word,
            "output": update.output,
            "error": update.error,
            "meta": update.meta,
        }
        return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS).decode()

    return text
