"""Sending a task to its provider, once. What comes of the create call goes through the one door."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from models import Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.domain.schedules import poll_delay, resend_delay
from receiver.domain.updates import ProviderUpdate, Source
from receiver.errors import Unavailable
from receiver.providers import (
    Accepted,
    CallerKey,
    CallPurpose,
    FailedAttempt,
    NewTask,
    NotMade,
    Provider,
    Refused,
    SubmitOutcome,
    UnknownOutcome,
)
from receiver.storage.database import Database
from receiver.storage.leases import Intent, Postponement, mark_sending, postpone
from receiver.telemetry import get_logger
from receiver.tracking.apply import Applied, Applier, Arrival
from receiver.tracking.task_references import Ready, Resolved, TaskReferences, Unresolvable, Waits

log = get_logger("tracking.submit")

FIRST_SEARCH_SECONDS = 5.0
"""When a submission with no answer is first looked for."""
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
"""How long a task that mentions one which the provider does not know yet waits between looks at that."""
_WRITE_AGAIN_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def lease_seconds(provider_timeout: float) -> float:
    """Return how long a task is leased: longer than any call to its provider, the wait for the budget included.

    A lease that ran out therefore means that its holder died.
    """
    return 4 * provider_timeout + 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One attempt of a task, on its way to the provider; `tries` counts the calls that made nothing.

    `submission` is what its row says: `sending`, or `waiting` as long as that is not written yet.
    """

    uid: str
    organization_id: int
    attempt: int
    model: str
    task_type: str
    input: dict[str, Any]
    config: dict[str, Any] | None
    submission: Submission
    bulk: bool = False
    tries: int = 0

    @property
    def caller(self) -> CallerKey:
        """Whose turn it takes at the provider."""
        return CallerKey(self.organization_id, CallPurpose.BULK if self.bulk else CallPurpose.CREATE)


class Submitter:
    """Calls the provider's create for tasks whose intent is on disk, or will be when their turn has come."""

    def __init__(
        self,
        database: Database,
        applier: Applier,
        providers: Mapping[str, Provider],
        keyring: KeyRing,
        public_url: str | None,
        *,
        lease_seconds: float,
    ) -> None:
        self._writer = database.writer
        self._applier = applier
        self._providers = providers
        self._references = TaskReferences(database)
        self._lease_seconds = lease_seconds
        self._keyring = keyring
        self._public_url = public_url

    async def send(self, provider_name: str, task: Outgoing) -> SubmitOutcome:
        """Send the task and write down what came of it; return that when it is on disk.

        A task that mentions another one, which the provider does not know yet, is not sent: `NotMade`.
        """
        resolved = await self._resolve(provider_name, task)
        if not isinstance(resolved, Ready):
            return await self._hold_back(provider_name, task, resolved)
        return await self._call(provider_name, replace(task, input=resolved.input))

    async def _call(self, provider_name: str, task: Outgoing) -> SubmitOutcome:
        begun = task.submission == Submission.SENDING

        async def begin() -> bool:
            nonlocal begun
            begun = begun or await self._begin(task)
            return begun

        provider = self._providers[provider_name]
        outcome = await provider.submit(self._new_task(provider_name, task), caller=task.caller, begin=begin)
        log_outcome = log.info if isinstance(outcome, Accepted) else log.warning
        log_outcome("submitted", task=task.uid, attempt=task.attempt, outcome=type(outcome).__name__)
        now_says = Submission.SENDING if begun else Submission.WAITING
        await self._write_surely(provider_name, replace(task, submission=now_says), outcome)
        return outcome

    async def _begin(self, task: Outgoing) -> bool:
        """Write down that the task is being sent; say False if it is not to be, or that could not be written."""
        try:
            intent = Intent(task.uid, task.attempt, self._lease_seconds)
            return await self._writer.write(mark_sending, intent, bounded=False)
        except Unavailable:
            return False

    async def _resolve(self, provider_name: str, task: Outgoing) -> Resolved | NotMade:
        try:
            return await self._references.resolve(task.organization_id, provider_name, task.input)
        except Unavailable as error:
            return NotMade(error.message)

    async def _hold_back(
        self, provider_name: str, task: Outgoing, resolved: Waits | Unresolvable | NotMade
    ) -> SubmitOutcome:
        match resolved:
            case NotMade():
                await self._write_surely(provider_name, task, resolved)
                return resolved
            case Waits(uid):
                delay = poll_delay(task.tries, first=_FIRST_WAIT_SECONDS, longest=_LONGEST_WAIT_SECONDS)
                await self._postpone(task, Submission.WAITING, task.tries + 1, delay)
                return NotMade(f"it waits for task {uid}, which its input mentions")
            case Unresolvable(uid, status):
                await self._apply(provider_name, task, _never_sent(uid, status))
                return NotMade(f"task {uid}, which its input mentions, is {status}")

    def _new_task(self, provider_name: str, task: Outgoing) -> NewTask:
        url, secret = None, None
        if self._public_url is not None:
            # The attempt in the address tells a late webhook of an earlier attempt from this one's.
            attempt = f"?attempt={task.attempt}" if task.attempt > 1 else ""
            url = f"{self._public_url}/hooks/{provider_name}/{task.uid}{attempt}"
            secret = self._keyring.hook_secret(task.uid)
        return NewTask(
            model=task.model,
            task_type=task.task_type,
            input=task.input,
            config=task.config,
            webhook_url=url,
            webhook_secret=secret,
        )

    async def _write_surely(self, provider_name: str, task: Outgoing, outcome: SubmitOutcome) -> None:
        """Write what came of it, also while the database is not to be had: nobody else knows it."""
        for delay in _WRITE_AGAIN_SECONDS:
            try:
                return await self._write(provider_name, task, outcome)
            except Unavailable:
                await asyncio.sleep(delay)
        return await self._write(provider_name, task, outcome)

    async def _write(self, provider_name: str, task: Outgoing, outcome: SubmitOutcome) -> None:
        match outcome:
            case Accepted(update):
                if update.status is None and not update.word:
                    update = replace(update, status=TaskStatus.PENDING)
                await self._apply(provider_name, task, update)
            case Refused(status, message):
                await self._apply(provider_name, task, _failure(status, message, retryable=False))
            case FailedAttempt(status, message):
                await self._apply(provider_name, task, _failure(status, message, retryable=True))
            case NotMade():
                delay = resend_delay(task.tries, outcome.retry_after, random.random())  # noqa: S311
                await self._postpone(task, Submission.WAITING, task.tries + 1, delay)
            case UnknownOutcome():
                await self._postpone(task, Submission.UNKNOWN, 0, FIRST_SEARCH_SECONDS)

    async def _apply(self, provider_name: str, task: Outgoing, update: ProviderUpdate) -> Applied:
        arrival = Arrival(provider=provider_name, task_uid=task.uid, update=replace(update, attempt=task.attempt))
        return await self._writer.write(self._applier.apply, arrival, bounded=False)

    async def _postpone(self, task: Outgoing, submission: Submission, poll_count: int, delay: float) -> None:
        due_at = utc_now() + timedelta(seconds=delay)
        item = Postponement(
            uid=task.uid,
            attempt=task.attempt,
            submission_was=task.submission,
            submission=submission,
            poll_count=poll_count,
            due_at=due_at,
        )
        await self._writer.write(postpone, item, bounded=False)
        self._applier.after_commit.due.set(due_at)


def _never_sent(uid: str, status: str) -> ProviderUpdate:
    message = f"not sent: the input mentions task {uid}, which is {status} and has no id at the provider"
    return ProviderUpdate(
        source=Source.SUBMIT,
        status=TaskStatus.FAILED,
        error={"code": "mentioned_task_unknown", "message": message, "raw_message": "", "detail": None},
        retryable=False,
        by_provider=False,
        is_snapshot=False,
    )


def _failure(status: int, message: str, *, retryable: bool) -> ProviderUpdate:
    return ProviderUpdate(
        source=Source.SUBMIT,
        status=TaskStatus.FAILED,
        error={"code": status, "message": message, "raw_message": message, "detail": None},
        retryable=retryable,
        is_snapshot=False,
    )
