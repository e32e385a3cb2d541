"""Submits a task to its provider, once. The outcome of the create call is an update like any other.

Why the intent is written before the call. A provider's create call costs money and has no idempotency key. If the
process dies after the call and before its outcome is on disk, the next process has to know that the call may have
been made. So `submission` becomes `sending` in a separate commit before the first byte is sent, under a lease;
a `sending` task whose lease ran out is treated as unknown and searched for (`receiver.tracking.search`), never sent
again. The reverse order would lose such tasks or pay for them twice. A task that is created alone is sent at once, so
its row is inserted as `sending`. For all others the intent is written as late as possible, when the call's turn under
the rate limit has come: a task that still waits for its turn when the process dies is `waiting`, and another process
can safely send it.

The outcome of the call decides what follows:

- accepted, or refused for good (a 4xx): applied as an update.
- failed (a redirect): applied as a failure of this attempt; another attempt follows if the task has one left.
- not made (429, 503, a connection that was never established): nothing exists at the provider. The task is `waiting`
  again and is sent again later.
- unknown (500, 502, 504, cut off, an unreadable response): the task may exist. It becomes `unknown` and is searched for
  (`receiver.tracking.search`).

The outcome is known only to this process, so writing it is repeated while the database is unavailable. It is also the
only one that knows that a task was certainly not sent: where it did not learn in time that its intent is on disk (the
answer to the commit is missing), nothing is sent, and the task waits again as soon as that is known.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from models import Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.create_calls import failed_attempt, lost_answer
from receiver.domain.keyring import KeyRing
from receiver.domain.schedules import poll_delay, resend_delay
from receiver.domain.updates import ProviderUpdate, Source, own_failure
from receiver.errors import OutcomeUnknown, Unavailable
from receiver.lease_check import SendLease, under
from receiver.providers import (
    PROVIDER_UNAUTHORIZED,
    Accepted,
    CallbackScope,
    CallerKey,
    CallPurpose,
    FailedAttempt,
    NewTask,
    NotMade,
    Provider,
    Providers,
    Refused,
    SubmitOutcome,
    UnknownOutcome,
)
from receiver.storage.database import Database
from receiver.storage.leases import Intent, LostAnswer, Postponement, keep_lost_answers, mark_sending, postpone
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, sent_without_lease
from receiver.tracking.apply import Applied, Applier
from receiver.tracking.call_spans import traced_call
from receiver.tracking.task_references import OfAnother, Ready, Resolved, TaskReferences, Unresolvable, Waits
from receiver.tracking.update_batch import Arrival

log = get_logger("tracking.submit")

_REFERENCE = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-([1-9][0-9]{0,2}))?", re.ASCII)
TASK_TAKEN = "provider_task_taken"
"""The error code of a task whose task at the provider belongs to another task of Ringback already."""
FIRST_SEARCH_SECONDS = 5.0
"""After this time a task whose create call got no answer is searched for."""
_FIRST_LOOK_SECONDS = 0.5
"""The same for one whose create call was answered with an error: most such calls have made nothing."""
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
"""The waits of a task that references one which the provider does not know yet: the first, and the longest."""
_WRITE_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def lease_seconds(provider_timeout: float) -> float:
    """Return how long a task is leased: longer than any call to its provider, the wait for the rate limit included.

    A lease that ran out therefore means that the process that held it died.
    """
    return 4 * provider_timeout + 60


class Outgoing(Struct, frozen=True, kw_only=True):
    """One attempt of a task that is to be sent; `tries` counts the earlier calls for it that made nothing.

    `submission` is that of its row: `sending` if the intent is written already, with a lease until `lease_until`, else
    `waiting`.
    """

    uid: str
    organization_id: int
    attempt: int
    model: str
    task_type: str
    input: dict[str, Any]
    config: dict[str, Any] | None
    submission: Submission
    account_id: int | None = None
    lease_until: datetime | None = None
    bulk: bool = False
    tries: int = 0
    trace_context: str | None = None

    @property
    def caller(self) -> CallerKey:
        """For whom and what for the provider is called: such calls take turns under the rate limit."""
        return CallerKey(self.organization_id, CallPurpose.BULK if self.bulk else CallPurpose.CREATE)


class Submitter:
    """Makes the create calls to providers. The intent is on disk before each call."""

    def __init__(
        self,
        database: Database,
        applier: Applier,
        providers: Providers,
        keyring: KeyRing,
        public_url: str | None,
        *,
        lease_seconds: float,
    ) -> None:
        self._writer = database.writer
        self._applier = applier
        self._providers = providers
        self._references = TaskReferences(database)
        self.lease_seconds = lease_seconds
        self._keyring = keyring
        self._public_url = public_url
        self._writing: set[asyncio.Task[None]] = set()

    async def send(self, provider_name: str, task: Outgoing) -> SubmitOutcome:
        """Send the task and write the outcome; return it when it is on disk.

        A task that references another one which the provider does not know yet is not sent: the outcome is `NotMade`.
        """
        resolved = await self._resolve(provider_name, task)
        if not isinstance(resolved, Ready):
            return await self._hold_back(provider_name, task, resolved)
        try:
            provider = await self._providers.of(provider_name, task.account_id)
        except Unavailable as error:  # its account could not be read
            return await self._hold_back(provider_name, task, NotMade(error.message))
        return await self._call(provider, replace(task, input=resolved.input))

    async def _call(self, provider: Provider, task: Outgoing) -> SubmitOutcome:
        provider_name = provider.name
        is_sending = task.submission == Submission.SENDING

        lease = SendLease(task.lease_until or self._new_lease_end())
        unknown: OutcomeUnknown | None = None

        async def confirm() -> bool:
            nonlocal is_sending, unknown
            if not is_sending:
                lease.until = self._new_lease_end()  # before the write, so that the row's lease ends no earlier
                try:
                    is_sending = await self._write_intent(task)
                except OutcomeUnknown as error:
                    unknown = error
            return is_sending and lease.may_send()

        with under(lease):
            call = provider.submit(self._new_task(provider, task), caller=task.caller, confirm=confirm)
            outcome = await traced_call("submit task", call, task.trace_context, **_span_ids(provider_name, task))
        outcome = self._unless_replaced(provider, task, outcome)
        _log_outcome(provider_name, task, outcome)
        if unknown is not None and unknown.later is not None:
            # To write to the task now would wait for the lock of the transaction whose commit is held.
            unknown.later.add_done_callback(lambda later: self._intent_known(task, later))
            return outcome
        submission = Submission.SENDING if is_sending else Submission.WAITING
        await self._write_until_stored(provider_name, replace(task, submission=submission), outcome)
        if is_sending and lease.has_ended():
            await self._after_lease(provider_name, task, outcome)
        return outcome

    def _unless_replaced(self, provider: Provider, task: Outgoing, outcome: SubmitOutcome) -> SubmitOutcome:
        """Return the outcome; that nothing was made for a refusal of credentials that were replaced during the call."""
        is_refused = isinstance(outcome, Refused) and outcome.code == PROVIDER_UNAUTHORIZED
        if not is_refused or self._providers.known(provider.name, task.account_id) is provider:
            return outcome
        return NotMade("the provider refused credentials of the account that have been replaced since")

    async def _after_lease(self, provider_name: str, task: Outgoing, outcome: SubmitOutcome) -> None:
        """Mend what another process may have done with a task whose lease ended during its create call."""
        if isinstance(outcome, NotMade):
            # The other process took the call for one whose answer was lost. But nothing was sent, and only this
            # process could send it: the task may be sent after all.
            await self._write_until_stored(provider_name, replace(task, submission=Submission.UNKNOWN), outcome)
        else:
            counted(sent_without_lease, "create").inc()
            log.warning("create call outlasted its lease", task_id=task.uid, attempt=task.attempt)

    def _new_lease_end(self) -> datetime:
        return utc_now() + timedelta(seconds=self.lease_seconds)

    async def _write_intent(self, task: Outgoing) -> bool:
        """Write that the task is being sent; return False if it may not be sent any more, or that was not stored.

        Raises `OutcomeUnknown`.
        """
        try:
            intent = Intent(task.uid, task.attempt, self.lease_seconds)
            return await self._writer.write(mark_sending, intent, bounded=False)
        except OutcomeUnknown:
            raise
        except Unavailable:
            return False

    def _intent_known(self, task: Outgoing, later: "asyncio.Future[bool]") -> None:
        """Let a task wait again that was not sent, because its intent became known, or was lost, too late."""
        if not later.cancelled():
            is_sending = later.exception() is None and later.result()
            self.not_sent(replace(task, submission=Submission.SENDING if is_sending else Submission.WAITING))

    def not_sent(self, task: Outgoing) -> None:
        """Let a task wait again that this process holds and has not sent; `submission` is its row's. Does not wait.

        It is sent in its turn, with an intent of its own.
        """

        async def write() -> None:
            await self._postpone(task, Submission.WAITING, task.tries, 0.0)

        writing = asyncio.create_task(self._until_stored(write), name=task.uid)
        self._writing.add(writing)
        writing.add_done_callback(self._wrote)

    async def drain(self, seconds: float) -> None:
        """Wait until the tasks that were not sent wait again, `seconds` at most."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=seconds)

    def _wrote(self, writing: "asyncio.Task[None]") -> None:
        self._writing.discard(writing)
        if not writing.cancelled() and (error := writing.exception()) is not None:
            log.error("task that was not sent could not be put back", task_id=writing.get_name(), exc_info=error)

    async def _resolve(self, provider_name: str, task: Outgoing) -> Resolved | NotMade:
        try:
            return await self._references.resolve(task.organization_id, provider_name, task.input)
        except Unavailable as error:
            return NotMade(error.message)

    async def _hold_back(
        self, provider_name: str, task: Outgoing, resolved: Waits | Unresolvable | OfAnother | NotMade
    ) -> SubmitOutcome:
        match resolved:
            case NotMade():
                await self._write_until_stored(provider_name, task, resolved)
                return resolved
            case Waits(uid):
                delay = poll_delay(task.tries, first=_FIRST_WAIT_SECONDS, longest=_LONGEST_WAIT_SECONDS)
                await self._postpone(task, Submission.WAITING, task.tries + 1, delay)
                return NotMade(f"it waits for task {uid}, which its input references")
            case Unresolvable(uid, status):
                await self._apply(provider_name, task, _reference_failure(uid, status))
                return NotMade(f"task {uid}, which its input references, is {status}")
            case OfAnother(provider_task_id):
                await self._apply(provider_name, task, _foreign_reference(provider_task_id))
                return NotMade(f"its input names task {provider_task_id}, which is another organization's")

    def _new_task(self, provider: Provider, task: Outgoing) -> NewTask:
        url, secret = None, None
        can = provider.capabilities
        if self._public_url is not None and can.callback == CallbackScope.TASK:
            # The attempt in the URL distinguishes this attempt's webhooks from late ones of an earlier attempt.
            attempt = f"?attempt={task.attempt}" if task.attempt > 1 else ""
            secret = self._keyring.hook_secret(task.uid)
            token = "" if can.sends_secret else f"/{secret}"
            url = f"{self._public_url}/hooks/{provider.name}/{task.uid}{token}{attempt}"
        return NewTask(
            model=task.model,
            task_type=task.task_type,
            input=task.input,
            config=task.config,
            webhook_url=url,
            webhook_secret=secret,
            reference=reference_of(task.uid, task.attempt),
        )

    async def _write_until_stored(self, provider_name: str, task: Outgoing, outcome: SubmitOutcome) -> None:
        """Write the outcome, and try again while the database is unavailable: only this process knows the outcome."""
        await self._until_stored(lambda: self._write(provider_name, task, outcome))

    async def _until_stored(self, write: Callable[[], Awaitable[None]]) -> None:
        for delay in _WRITE_RETRY_SECONDS:
            try:
                return await write()
            except Unavailable:
                await asyncio.sleep(delay)
        return await write()

    async def _write(self, provider_name: str, task: Outgoing, outcome: SubmitOutcome) -> None:
        match outcome:
            case Accepted(update):
                if update.status is None and not update.word:
                    update = replace(update, status=TaskStatus.PENDING)
                if (await self._apply(provider_name, task, update)).is_taken:
                    message = taken_message(str(update.provider_task_id))
                    await self._apply(provider_name, task, own_failure(Source.SUBMIT, TASK_TAKEN, message))
            case Refused(status, message, code=code, detail=detail):
                failure = failed_attempt(code or status, message, detail=detail, retryable=False)
                await self._apply(provider_name, task, failure)
            case FailedAttempt(status, message):
                await self._apply(provider_name, task, failed_attempt(status, message))
            case NotMade():
                delay = resend_delay(task.tries, outcome.retry_after, random.random())  # noqa: S311
                await self._postpone(task, Submission.WAITING, task.tries + 1, delay)
            case UnknownOutcome(message, status):
                lost = LostAnswer(uid=task.uid, attempt=task.attempt, error=lost_answer(message, status))
                await self._writer.write(keep_lost_answers, lost, bounded=False, until_known=True)
                delay = FIRST_SEARCH_SECONDS if status is None else min(FIRST_SEARCH_SECONDS, _FIRST_LOOK_SECONDS)
                await self._postpone(task, Submission.UNKNOWN, 0, delay)

    async def _apply(self, provider_name: str, task: Outgoing, update: ProviderUpdate) -> Applied:
        arrival = Arrival(provider=provider_name, task_uid=task.uid, update=replace(update, attempt=task.attempt))
        return await self._writer.write(
            self._applier.apply,
            arrival,
            bounded=False,
            until_known=True,
            organization=task.organization_id,
        )

    async def _postpone(self, task: Outgoing, submission: Submission, poll_count: int, delay: float) -> None:
        due_at = utc_now() + timedelta(seconds=delay)
        item = Postponement(
            uid=task.uid,
            attempt=task.attempt,
            submission_was=task.submission,
            submission=submission,
            poll_count=poll_count,
            due_at=due_at,
            cancel_requested_at=None,
        )
        await self._writer.write(postpone, item, bounded=False, until_known=True)
        self._applier.after_commit.due.set(due_at)


def _span_ids(provider_name: str, task: Outgoing) -> dict[str, str | int]:
    return {"task_id": task.uid, "provider": provider_name, "model": task.model, "attempt": task.attempt}


def _log_outcome(provider_name: str, task: Outgoing, outcome: SubmitOutcome) -> None:
    ids = {"task_id": task.uid, "attempt": task.attempt, "provider": provider_name}
    match outcome:
        case Accepted(update):
            log.debug("submitted", **ids, provider_task_id=update.provider_task_id)
        case Refused() | FailedAttempt():
            log.warning("submit failed", **ids, outcome=type(outcome).__name__, error_code=outcome.status)
        case NotMade() | UnknownOutcome():
            log.warning("submit failed", **ids, outcome=type(outcome).__name__, error=outcome.for_log)


def _reference_failure(uid: str, status: str) -> ProviderUpdate:
    message = f"not sent: the input references task {uid}, which is {status} and has no id at the provider"
    return own_failure(Source.SUBMIT, "mentioned_task_unknown", message)


def _foreign_reference(provider_task_id: str) -> ProviderUpdate:
    message = f"not sent: the input names the provider's task {provider_task_id}, which is not one of yours"
    return own_failure(Source.SUBMIT, "mentioned_task_unknown", message)


def reference_of(uid: str, attempt: int) -> str:
    """Return our own name for an attempt at the provider, the same for every call."""
    return uid if attempt == 1 else f"{uid}-{attempt}"


def task_of_reference(reference: str) -> tuple[str, int] | None:
    """Return the task's id and the attempt that a reference names, None if it is none of ours."""
    found = _REFERENCE.fullmatch(reference)
    return None if found is None else (found[1], int(found[2] or 1))


def taken_message(provider_task_id: str) -> str:
    """Return the message of a task that fails with `TASK_TAKEN`."""
    return f"the provider answered with its task {provider_task_id}, which belongs to another task of Ringback"
