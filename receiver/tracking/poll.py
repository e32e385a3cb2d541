"""Acts on one due task: submits, searches for, recalls, polls or times it out, or looks again at one that has ended.

What counts as silence. A task times out when the provider has said nothing about it for
`RINGBACK_TASK_TIMEOUT_SECONDS`: no webhook, no answer to a poll, or only words that Ringback does not know. An answered
poll is news even if it changes nothing, and a task that waits to be sent waits for us, not for the provider: it does
not time out. `RINGBACK_TASK_LIMIT_SECONDS` without any change ends a task whatever it waits for.

An end of ours may be wrong, because it follows from what the provider did not say (`timed_out`, `provider_lost_task`,
`submission_unknown`). Such a task keeps its ids and stays due: it is looked at several times more, and heals if the
provider has completed it (`receiver.domain.transitions`).
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from models import TERMINAL, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.decisions import is_unsent
from receiver.domain.keyring import KeyRing
from receiver.domain.schedules import exception_delay
from receiver.domain.task_state import TaskState
from receiver.providers import CallerKey, CallPurpose, FetchOutcome, Found, Missing, NoAnswer, Providers, ProviderTask
from receiver.storage.database import Database
from receiver.storage.leases import count_exception, poll_now
from receiver.storage.lost_creates import last_change
from receiver.storage.tasks import task_by_uid
from receiver.storage.transaction import DueTask
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, task_exceptions
from receiver.telemetry.tracing import is_tracing
from receiver.tracking.apply import Applier
from receiver.tracking.call_spans import span_ids, traced_call
from receiver.tracking.conclusions import Conclusions
from receiver.tracking.recall import Recaller
from receiver.tracking.search import Searcher
from receiver.tracking.stuck import StuckTasks
from receiver.tracking.submit import Outgoing, Submitter

log = get_logger("tracking.poll")

_SHORT_PAUSE_SECONDS = 1.0
"""While a provider asks for a pause of at most this long, tasks are still claimed: their calls wait for its end."""
_MOST_EXCEPTIONS = 8
"""After this many exceptions in a row (about two minutes), a task fails; earlier if its time-out has passed."""
_LONGEST_FIND_SECONDS = 10.0


def _nothing() -> None:
    """Do nothing."""


class MissingRule(Struct, frozen=True):
    """When "not found" is believed: after `polls` such answers in a row, if the first is `seconds` old.

    A single one proves little: a new task may not be visible at the provider yet, or a gateway answers in its place.
    """

    polls: int
    seconds: float

    def believes(self, count: int, since: datetime, now: datetime) -> bool:
        """Return whether `count` answers in a row, the first of them at `since`, are enough."""
        return count >= self.polls and now >= since + timedelta(seconds=self.seconds)


class Poller:
    """Does what a due task needs. Every call ends with the task's `due_at` moved into the future, or the task ended."""

    def __init__(
        self,
        database: Database,
        applier: Applier,
        submitter: Submitter,
        providers: Providers,
        keyring: KeyRing,
        *,
        unknown_seconds: float,
        missing: MissingRule,
        stuck: StuckTasks,
        failed_seconds: float = 10.0,
    ) -> None:
        self._database = database
        self._writer = database.writer
        self._applier = applier
        self._submitter = submitter
        self._providers = providers
        self._keyring = keyring
        self._missing = missing
        self._stuck = stuck
        self._conclusions = Conclusions(database.writer, applier)
        self._recaller = Recaller(self._conclusions, providers, missing.believes)
        self._searcher = Searcher(
            database,
            self._conclusions,
            providers,
            self.count_exception,
            unknown_seconds=unknown_seconds,
            failed_seconds=failed_seconds,
            limit_seconds=applier.poll_schedule.limit,
            call_seconds=submitter.lease_seconds,
        )

    def may_send(self) -> bool:
        """Return whether a task can be sent now: False if every provider has asked for a pause."""
        return any(each.paused_for() <= _SHORT_PAUSE_SECONDS for each in self._providers.adapters())

    async def act_on(self, due: DueTask, answered: Callable[[], None] = _nothing) -> None:
        """Do what a claimed task needs: poll it if the provider's id is known, else search for it or submit it.

        One that is to be recalled is polled only if the provider has not answered the recall. `answered` is called when
        the provider has answered a poll, and all that is left is to store what it said.
        """
        task = due.state
        if task.status in TERMINAL:
            await self._look_again(task)
            return
        is_recalled = task.cancel_requested_at is not None
        if task.provider_task_id is not None:
            if not (is_recalled and await self._recaller.recall(task)):
                await self._poll(task, answered)
            return
        if is_recalled and is_unsent(task):
            await self._recaller.cancel_unsent(task)
            return
        if task.submission != Submission.WAITING:
            await self._searcher.search(task)
            return
        # What has changed since the claim is seen when the intent to send it is written.
        content = await self._content(due)
        if content is None:
            return
        updated_at, given, config = content
        if not await self._is_at_limit(task, updated_at, task.last_update_at):
            await self._submitter.send(task.provider, _outgoing(due, given, config))

    async def poll_now(self, uid: str) -> None:
        """Poll a task now, whenever it is due, also one that has ended: its result may have come later.

        A task whose create call got no answer is searched for. Does nothing for one that was not sent.
        """
        task = (await self._writer.run(lambda tx: tx.load_tasks([uid]))).get(uid)
        if task is None:
            return
        if task.provider_task_id is None:
            await self._find_now(task)
        elif task.status in TERMINAL:
            await self._poll_ended(task)
        else:
            await self._poll(task)

    async def poll_soon(self, uids: Collection[str]) -> None:
        """Make these tasks due for a poll now: the worker polls them as the provider's limit allows.

        Does nothing for those that have ended, or that the provider does not have. Raises `Unavailable`.
        """
        now = utc_now()
        await self._writer.run(lambda tx: poll_now(tx, uids, now))
        self._applier.after_commit.due.set(now)

    async def finds_lost_create(self, row: Mapping[str, Any]) -> bool:
        """Return whether the provider turns out to have a failed task of whose create call nothing is proved.

        It is looked for within 10 s: one whose call got no answer, or an error (500). One that failed without proof is
        polled, and so corrected if it has completed meanwhile.
        """
        is_named = row["provider_task_id"] is not None
        is_lost = not is_named and row["submission"] in (Submission.SENDING, Submission.UNKNOWN)
        is_doubtful = is_named and row["due_at"] is not None
        if row["status"] != TaskStatus.FAILED or not (is_lost or is_doubtful):
            return False
        looking = asyncio.create_task(self.poll_now(row["uid"]))
        await asyncio.wait({looking}, timeout=_LONGEST_FIND_SECONDS)
        if not looking.done():
            looking.cancel()
            return False
        if (error := looking.exception()) is not None:
            log.warning("looking for a lost create failed", task_id=row["uid"], error=type(error).__name__)
            return False
        found = await self._row(row["uid"])
        return is_lost and found is not None and found["provider_task_id"] is not None

    async def count_exception(self, task: TaskState, error: Exception) -> None:
        """Count an exception that acting on a task raised; after several in a row the task fails.

        The first one is logged with its traceback. Without a bound, a task that no code can act on would never end.
        """
        counted(task_exceptions, task.provider).inc()
        count = task.exception_count + 1
        ids = {"task_id": task.uid, "provider": task.provider, "exception_count": count}
        if count == 1:
            log.error("acting on task failed", **ids, exc_info=error)
        else:
            log.warning("acting on task failed again", **ids, error=type(error).__name__)
        if task.status in TERMINAL:
            await self._conclusions.look_later(task, is_answered=True)
            return
        now = utc_now()
        is_silent = task.submission == Submission.ACCEPTED
        is_silent = is_silent and now >= self._applier.poll_schedule.deadline(task.last_update_at)
        if count >= _MOST_EXCEPTIONS or is_silent:
            # Its text may have anything of the rows or of a driver in it: that is for the log.
            message = f"Ringback cannot act on the task, an exception was raised {count} times: {type(error).__name__}"
            await self._conclusions.fail(task, "internal_error", f"{message}; the log has the details")
        due_at = now + timedelta(seconds=exception_delay(count))
        await self._writer.run(lambda tx: count_exception(tx, task, due_at), bounded=False)
        self._applier.after_commit.due.set(due_at)

    async def _content(self, due: DueTask) -> tuple[datetime, Any, Any] | None:
        """Return when a task that waits to be sent has changed last, its input and its config.

        None if it does not wait any more.
        """
        if due.content is not None:
            return due.content.updated_at, *due.content.documents()
        row = await self._row(due.state.uid)  # it is too large to come with its claim
        if row is None or row["status"] in TERMINAL or row["attempt"] != due.state.attempt:
            return None
        return row["updated_at"], row["input"], row["config"]

    async def _row(self, uid: str) -> Mapping[str, Any] | None:
        rows = await self._database.read(task_by_uid(uid))
        return rows[0] if rows else None

    async def _fetch(self, task: TaskState) -> FetchOutcome:
        provider = await self._providers.of(task.provider, task.account_id)
        call = provider.fetch(
            ProviderTask.of_state(task),
            attempt=task.attempt,
            hidden=self._keyring.hook_secret(task.uid),
            caller=_caller(task.organization_id),
        )
        if not is_tracing():
            return await call
        return await traced_call("poll task", call, task.trace_context, **span_ids(task))

    async def _poll(self, task: TaskState, answered: Callable[[], None] = _nothing) -> None:
        outcome = await self._fetch(task)
        answered()
        match outcome:
            case Found(update):
                if not (await self._conclusions.apply(task, update)).changed:
                    # An unknown word says no more about the task than silence does.
                    await (self._time_out(task) if update.status is None else self._reached_limit(task))
            case Missing() as missing:
                _log_failed_poll(task, missing)
                await self._count_missing(task)
            case NoAnswer() as silence:
                _log_failed_poll(task, silence)
                await self._postpone_poll(task, silence.retry_after)
                await self._time_out(task)

    async def _count_missing(self, task: TaskState) -> None:
        now = utc_now()
        count, since = task.missing_count + 1, task.missing_since or now
        if self._missing.believes(count, since, now):
            kept = self._providers.capabilities(task.provider).record_seconds
            await self._conclusions.fail(task, "provider_lost_task", _lost_message(task, kept, now))
            return
        await self._postpone_poll(replace(task, missing_count=count, missing_since=since))
        await self._time_out(task)

    async def _poll_ended(self, task: TaskState) -> None:
        """Poll a task that has ended, and apply what the provider reports; nothing else of it changes."""
        outcome = await self._fetch(task)
        if isinstance(outcome, Found):
            await self._conclusions.apply(task, outcome.update)
        else:
            _log_failed_poll(task, outcome)

    async def _find_now(self, task: TaskState) -> None:
        if task.submission in (Submission.SENDING, Submission.UNKNOWN):
            await self._searcher.search_now(task)

    async def _look_again(self, task: TaskState) -> None:
        """Look once more at a task that Ringback ended by itself."""
        if task.provider_task_id is None:
            await self._searcher.search(task)
            return
        outcome = await self._fetch(task)
        if not isinstance(outcome, Found):
            _log_failed_poll(task, outcome)
            await self._conclusions.look_later(task, is_answered=isinstance(outcome, Missing))
            return
        await self._conclusions.apply(task, outcome.update, keeps_receipt=True)
        if outcome.update.status in TERMINAL:
            await self._conclusions.look_no_more(task)
        else:
            if task.cancel_requested_at is not None:  # its run was cancelled, and it costs money
                await self._recaller.recall(task)
            await self._conclusions.look_later(task, is_answered=False)  # it may still complete

    async def _reached_limit(self, task: TaskState) -> bool:
        """Fail a task that has not changed for too long, whatever the provider says; return whether that was so."""
        rows = await self._database.read(last_change(task.uid))
        return bool(rows) and await self._is_at_limit(task, rows[0]["updated_at"], rows[0]["last_update_at"])

    async def _is_at_limit(self, task: TaskState, updated_at: datetime, last_update_at: datetime) -> bool:
        """Do the same for a task of which it was just read when it last changed, and was last heard of."""
        schedule = self._applier.poll_schedule
        if not schedule.is_too_old(updated_at, utc_now()):
            await self._stuck.note(task, updated_at)
            return False
        as_it_is = replace(task, last_update_at=last_update_at)  # the poll may have been an answer
        await self._conclusions.fail(as_it_is, "timed_out", f"the task has not changed for {schedule.limit:g} s")
        return True

    async def _time_out(self, task: TaskState) -> bool:
        """Fail a task whose last update is too long ago; return whether that was so."""
        schedule = self._applier.poll_schedule
        if utc_now() < schedule.deadline(task.last_update_at):
            await self._stuck.note(task, task.last_update_at)
            return False
        message = f"no update of the task for {schedule.timeout:g} s"
        if not task.words:
            await self._conclusions.fail(task, "timed_out", message)
            return True
        # The word may have meant an end: its reason stays.
        row = await self._row(task.uid) or {}
        message += f"; Ringback does not know the provider's status {', '.join(map(repr, task.words))}"
        await self._conclusions.fail(task, "timed_out", message, row.get("error"))
        return True

    async def _postpone_poll(self, task: TaskState, retry_after: float | None = None) -> None:
        now = utc_now()
        schedule = self._applier.schedule_of(task.provider)
        after_look = schedule.after_poll if task.cancel_requested_at is None else schedule.after_recall
        due_at = after_look(task.poll_count + 1, task.last_update_at, now)
        delay = max((due_at - now).total_seconds(), retry_after or 0)
        await self._conclusions.postpone(task, Submission.ACCEPTED, delay)


def _lost_message(task: TaskState, kept_seconds: float | None, now: datetime) -> str:
    """Return why a task is lost; `kept_seconds` is how long its provider keeps one, None if that is not known."""
    message = "the provider does not know the task; retry it to create it there again"
    if kept_seconds is None or now < task.last_update_at + timedelta(seconds=kept_seconds):
        return message
    return (
        f"the provider does not know the task any more: it keeps one for {kept_seconds:g} s, and the last news of this "
        "one is older, so it may have ended, and been charged; its result is gone, retry it to create it there again"
    )


def _caller(organization_id: int) -> CallerKey:
    return CallerKey(organization_id, CallPurpose.POLL)


def _outgoing(due: DueTask, given: Any, config: Any) -> Outgoing:
    task = due.state
    return Outgoing(
        uid=task.uid,
        organization_id=task.organization_id,
        account_id=task.account_id,
        attempt=task.attempt,
        model=task.model,
        task_type=task.task_type,
        input=given,
        config=config,
        submission=Submission.WAITING,
        bulk=due.queue is not None and due.queue[1],
        tries=task.poll_count,
        trace_context=task.trace_context,
    )


def _log_failed_poll(task: TaskState, outcome: Missing | NoAnswer) -> None:
    log.warning(
        "poll failed",
        task_id=task.uid,
        provider=task.provider,
        provider_task_id=task.provider_task_id,
        error=outcome.for_log,
    )
