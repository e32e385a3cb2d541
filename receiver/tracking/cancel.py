"""Cancelling tasks: at once if the task was never sent, else only if the provider agrees."""

from collections.abc import Mapping
from typing import Any

from models import TERMINAL, TaskStatus
from receiver.clock import utc_now
from receiver.domain.updates import Source, cancellation
from receiver.errors import Conflict, NotFound, ProviderRefused, Unavailable
from receiver.providers import (
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
from receiver.storage.leases import poll_now
from receiver.storage.writer import Writer
from receiver.tracking.apply import Applied, Applier
from receiver.tracking.call_spans import traced_call
from receiver.tracking.update_batch import Arrival


class Canceller:
    """Cancels tasks, at their provider if that is where they are."""

    def __init__(self, writer: Writer, applier: Applier, providers: Providers) -> None:
        self._writer = writer
        self._applier = applier
        self._providers = providers

    async def cancel(self, task: Mapping[str, Any]) -> str:
        """Cancel the task of this row; return the message for the client when the change is on disk.

        Raises `Conflict` if the task has ended or is being sent, `ProviderRefused` with the provider's own message,
        `NotFound` if the provider does not know the task, `Unavailable` if it does not answer.
        """
        if task["status"] in TERMINAL:
            raise Conflict(f"the task is {task['status']}: only one that has not ended can be cancelled")
        if task["provider_task_id"] is None:
            return await self._cancel_unsent(task)
        caller = CallerKey(task["organization_id"], CallPurpose.CANCEL)
        provider = await self._providers.of(task["provider"], task["account_id"])
        call = provider.cancel(ProviderTask.of_row(task), caller=caller)
        ids = {"task_id": task["uid"], "attempt": task["attempt"]}
        ids |= {name: task[name] for name in ("provider", "model", "provider_task_id")}
        match await traced_call("cancel task", call, task["trace_context"], **ids):
            case Cancelled(message):
                applied = await self._apply(task, by_provider=True)
                if applied.status != TaskStatus.CANCELLED:
                    raise Conflict(f"the task was {applied.status} before it could be cancelled")
                return message
            case CancelRequested(message):
                await self._writer.run(lambda tx: poll_now(tx, [task["uid"]], utc_now()))
                self._applier.after_commit.due.set(utc_now())
                return message
            case Refused(status, message, body, code):
                raise ProviderRefused(message, status=status, body=body, code=code)
            case Missing(message):
                raise NotFound(
                    f"the provider does not know the task, so it cannot cancel it: {message}", code="task_not_found"
                )
            case NoAnswer(message):
                raise Unavailable(f"the provider did not answer ({message}); the task is not cancelled, try again")

    async def _cancel_unsent(self, task: Mapping[str, Any]) -> str:
        applied = await self._apply(task, by_provider=False)
        if applied.status != TaskStatus.CANCELLED:
            raise Conflict("the task is being sent to the provider, which has not answered yet; try again soon")
        return "cancelled before it was sent"

    async def _apply(self, task: Mapping[str, Any], *, by_provider: bool) -> Applied:
        source = Source.POLL if by_provider else Source.SUBMIT
        update = cancellation(source, task["attempt"], by_provider=by_provider)
        arrival = Arrival(provider=task["provider"], task_uid=task["uid"], update=update)
        # What the provider has done is written however much waits: it cannot be taken back.
        return await self._writer.write(self._applier.apply, arrival, bounded=not by_provider)
