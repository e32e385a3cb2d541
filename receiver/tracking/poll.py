"""Acts on one due task: submits it, searches for it, recalls it, polls it or times it out.

Why an unknown submission is searched for. When a create call is cut off after the request was sent (or answered with
502, 504 or nonsense), the provider may or may not have made the task, and may or may not charge for it. Sending it
again could pay twice, so Ringback never does. It sets `submission` to `unknown` and waits for proof, of which there
are three kinds: a webhook to the task's own URL (`receiver.inbound`); an entry in the provider's history whose webhook
URL names the task; or, where there is no public URL, the only entry of the history with the same model, task type and
input that belongs to no other task, while no other task waits for the same proof. When in doubt it is not taken:
tracking another client's work under this task would be worse than failing. Without proof the task fails with
`submission_unknown` after `RINGBACK_SUBMISSION_UNKNOWN_SECONDS`; its client may retry it, knowing the risk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from models import TERMINAL, Submission
from receiver.clock import earliest_elsewhere, utc_now
from receiver.domain.keyring import KeyRing
from receiver.domain.redaction import REDACTED
from receiver.domain.schedules import exception_delay, poll_delay
from receiver.domain.task_state import TaskState
from receiver.domain.transitions import is_unsent
from receiver.domain.updates import ProviderUpdate, Source, own_failure
from receiver.providers import CallerKey, CallPurpose, FetchOutcome, Found, MalformedUpdate, Missing, NoAnswer, Provider
from receiver.storage.database import Database
from receiver.storage.leases import Postponement, count_exception, postpone
from receiver.storage.tasks import assigned_provider_ids, overdue_unsent_tasks, task_by_uid, unconfirmed_tasks
from receiver.storage.transaction import DueTask
from receiver.telemetry import counted, get_logger, task_exceptions
from receiver.tracking.apply import Applied, Applier
from receiver.tracking.recall import Recaller
from receiver.tracking.submit import FIRST_SEARCH_SECONDS, TASK_TAKEN, Outgoing, Submitter, taken_message
from receiver.tracking.task_references import TaskReferences
from receiver.tracking.update_batch import Arrival

log = get_logger("tracking.poll")

_LONGEST_SEARCH_SECONDS = 60.0
_SHORT_PAUSE_SECONDS = 1.0
"""While a provider asks for a pause of at most this long, tasks are still claimed: their calls wait for its end."""
_MOST_EXCEPTIONS = 8
"""After this many exceptions in a row (about two minutes), a task fails; earlier if its time-out has passed."""
_LONGEST_REASON = 300
_MOST_OVERDUE = 200
_CLOCK_SKEW_SECONDS = 60.0
"""The history is searched from this long before the create call: the provider's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class MissingRule:
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
        providers: Mapping[str, Provider],
        keyring: KeyRing,
        *,
        unknown_seconds: float,
        missing: MissingRule,
    ) -> None:
        self._database = database
        self._writer = database.writer
        self._applier = applier
        self._submitter = submitter
        self._providers = providers
        self._references = TaskReferences(database)
        self._keyring = keyring
        self._unknown_seconds = unknown_seconds
        self._missing = missing
        self._recaller = Recaller(database.writer, applier, providers, missing.believes)

    def may_send(self) -> bool:
        """Return whether a task can be sent now: False if every provider has asked for a pause."""
        return any(each.paused_for() <= _SHORT_PAUSE_SECONDS for each in self._providers.values())

    async def act_on(self, due: DueTask) -> None:
        """Do what a claimed task needs: poll it if the provider's id is known, else search for it or submit it.

        One that is to be recalled is polled only if the provider has not answered the recall.
        """
        task = due.state
        is_recalled = task.cancel_requested_at is not None
        if task.provider_task_id is not None:
            if not (is_recalled and await self._recaller.recall(task)):
                await self._poll(task)
            return
        if is_recalled and is_unsent(task):
            await self._recaller.cancel_unsent(task)
            return
        row = await self._row(task.uid)
        if row is None or row["status"] in TERMINAL or row["attempt"] != task.attempt:
            return
        if task.submission != Submission.WAITING:
            await self._search(due, row)
        elif not await self._time_out(task):
            await self._submitter.send(task.provider, _outgoing(row))

    async def time_out_unsent(self) -> None:
        """Fail tasks whose time-out passed while they waited to be sent. For the time of a long pause: see `may_send`.

        While tasks may be sent, each is claimed in its turn, and then times out by itself.
        """
        before = utc_now() - timedelta(seconds=self._applier.poll_schedule.timeout)
        overdue = [row["uid"] for row in await self._database.read(overdue_unsent_tasks(before, _MOST_OVERDUE))]
        found = await self._writer.run(lambda tx: tx.load_tasks(overdue), bounded=False) if overdue else {}
        for task in found.values():
            if task.submission == Submission.WAITING and task.status not in TERMINAL:
                await self._time_out(task)

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
        now = utc_now()
        if count >= _MOST_EXCEPTIONS or now >= self._applier.poll_schedule.deadline(task.last_update_at):
            reason = f"{type(error).__name__}: {error}".replace(self._keyring.hook_secret(task.uid), REDACTED)
            message = f"Ringback cannot act on the task, an exception was raised {count} times: "
            await self._fail(task, "internal_error", message + reason[:_LONGEST_REASON])
        due_at = now + timedelta(seconds=exception_delay(count))
        await self._writer.run(lambda tx: count_exception(tx, task, due_at), bounded=False)
        self._applier.after_commit.due.set(due_at)

    async def _row(self, uid: str) -> Mapping[str, Any] | None:
        rows = await self._database.read(task_by_uid(uid))
        return rows[0] if rows else None

    async def _fetch(self, task: TaskState) -> FetchOutcome:
        return await self._providers[task.provider].fetch(
            str(task.provider_task_id),
            attempt=task.attempt,
            hidden=self._keyring.hook_secret(task.uid),
            caller=_caller(task.organization_id),
        )

    async def _poll(self, task: TaskState) -> None:
        match await self._fetch(task):
            case Found(update):
                if not (await self._apply(task, update)).changed:
                    await self._time_out(task)
            case Missing(message):
                _log_failed_poll(task, message)
                await self._count_missing(task)
            case NoAnswer(message, retry_after):
                _log_failed_poll(task, message)
                await self._postpone_poll(task, retry_after)
                await self._time_out(task)

    async def _count_missing(self, task: TaskState) -> None:
        now = utc_now()
        count, since = task.missing_count + 1, task.missing_since or now
        if self._missing.believes(count, since, now):
            message = "the provider does not know the task; retry it to create it there again"
            await self._fail(task, "provider_lost_task", message)
            return
        await self._postpone_poll(replace(task, missing_count=count, missing_since=since))
        await self._time_out(task)

    async def _poll_ended(self, task: TaskState) -> None:
        """Poll a task that has ended, and apply what the provider reports; nothing else of it changes."""
        outcome = await self._fetch(task)
        if isinstance(outcome, Found):
            await self._apply(task, outcome.update)
        else:
            _log_failed_poll(task, outcome.message)

    async def _find_now(self, task: TaskState) -> None:
        row = await self._row(task.uid)
        if row is not None and task.submission in (Submission.SENDING, Submission.UNKNOWN):
            update = await self._find(row)
            if update is not None:
                await self._apply(task, update)

    async def _time_out(self, task: TaskState) -> bool:
        """Fail a task whose last update is too long ago; return whether that was so."""
        schedule = self._applier.poll_schedule
        if utc_now() < schedule.deadline(task.last_update_at):
            return False
        message = f"no update of the task for {schedule.timeout:g} s"
        if not task.words:
            await self._fail(task, "timed_out", message)
            return True
        # The word may have meant an end: its reason stays.
        row = await self._row(task.uid) or {}
        message += f"; Ringback does not know the provider's status {', '.join(map(repr, task.words))}"
        await self._fail(task, "timed_out", message, row.get("error"))
        return True

    async def _search(self, due: DueTask, row: Mapping[str, Any]) -> None:
        """Search for a task whose create call got no answer. It is never sent again: it might be paid for twice."""
        task = due.state
        began = due.submitted_at or row["created_at"]
        update = await self._find(row)
        if update is not None:
            if (await self._apply(task, update)).is_taken:  # somebody adopted it before it was found
                await self._fail(task, TASK_TAKEN, taken_message(str(update.provider_task_id)))
        elif utc_now() >= began + timedelta(seconds=self._unknown_seconds):
            await self._fail(
                task,
                "submission_unknown",
                f"the provider did not answer the create call{_known_of(row)}, and there was no update of the task "
                "since; it may have been created, and charged, all the same: check that before you retry it",
            )
        else:
            delay = poll_delay(task.poll_count, first=FIRST_SEARCH_SECONDS, longest=_LONGEST_SEARCH_SECONDS)
            await self._postpone(task, Submission.UNKNOWN, min(delay, self._unknown_seconds))

    async def _find(self, row: Mapping[str, Any]) -> ProviderUpdate | None:
        """Find the task in the provider's history: by its webhook URL, or else as the only match of its request."""
        provider = self._providers[row["provider"]]
        since = earliest_elsewhere(row["submitted_at"] or row["created_at"]) - timedelta(seconds=_CLOCK_SKEW_SECONDS)
        listed = await provider.history(model=row["model"], since=since, caller=_caller(row["organization_id"]))
        candidates = [update for item in listed or () if (update := _parsed(provider, item, row)) is not None]
        for update in candidates:
            if _names_task(update, row):
                return update
        return await self._only_match(row, candidates)

    async def _only_match(self, row: Mapping[str, Any], candidates: list[ProviderUpdate]) -> ProviderUpdate | None:
        """Return the only candidate with the same request that belongs to no other task; None if there is a doubt."""
        request = await self._references.as_sent(row)
        same = [update for update in candidates if _has_same_request(update, row, request)]
        ids = [update.provider_task_id for update in same]
        assigned = await self._database.read(assigned_provider_ids(row["provider"], ids))
        taken = {each["provider_task_id"] for each in assigned}
        free = [update for update in same if update.provider_task_id not in taken]
        rivals = await self._database.read(unconfirmed_tasks(row["provider"], row["model"], row["uid"]))
        same_rivals = [rival for rival in rivals if await self._references.as_sent(rival) == request]
        return free[0] if len(free) == 1 and not same_rivals else None

    async def _apply(self, task: TaskState, update: ProviderUpdate) -> Applied:
        arrival = Arrival(provider=task.provider, task_uid=task.uid, update=replace(update, attempt=task.attempt))
        return await self._writer.write(self._applier.apply, arrival, bounded=False)

    async def _fail(self, task: TaskState, code: str, message: str, detail: Any = None) -> None:
        """Fail a task by Ringback's own decision, unless there was an update since the decision."""
        log.warning("task failed by Ringback", task_id=task.uid, provider=task.provider, error_code=code, error=message)
        await self._apply(
            task, own_failure(Source.POLL, code, message, detail=detail, last_update_at=task.last_update_at)
        )

    async def _postpone_poll(self, task: TaskState, retry_after: float | None = None) -> None:
        now = utc_now()
        schedule = self._applier.poll_schedule
        after_look = schedule.after_poll if task.cancel_requested_at is None else schedule.after_recall
        due_at = after_look(task.poll_count + 1, task.last_update_at, now)
        delay = max((due_at - now).total_seconds(), retry_after or 0)
        await self._postpone(task, Submission.ACCEPTED, delay)

    async def _postpone(self, task: TaskState, submission: Submission, delay: float) -> None:
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


def _caller(organization_id: int) -> CallerKey:
    return CallerKey(organization_id, CallPurpose.POLL)


def _outgoing(row: Mapping[str, Any]) -> Outgoing:
    return Outgoing(
        uid=row["uid"],
        organization_id=row["organization_id"],
        attempt=row["attempt"],
        model=row["model"],
        task_type=row["task_type"],
        input=row["input"],
        config=row["config"],
        submission=Submission.WAITING,
        bulk=row["bulk"],
        tries=row["poll_count"],
    )


def _known_of(row: Mapping[str, Any]) -> str:
    """Return what is known of a create call whose outcome is unknown, in brackets; "" if nothing is."""
    words = (row["error"] or {}).get("message")
    return f" as expected ({words})" if words else ""


def _log_failed_poll(task: TaskState, message: str) -> None:
    log.warning(
        "poll failed",
        task_id=task.uid,
        provider=task.provider,
        provider_task_id=task.provider_task_id,
        error=message,
    )


def _parsed(provider: Provider, item: Any, row: Mapping[str, Any]) -> ProviderUpdate | None:
    """Return one item of the provider's history as an update; None if it cannot be read, for it may be another's."""
    try:
        return provider.parse_task(item, attempt=row["attempt"])
    except MalformedUpdate:
        return None


def _webhook_url(update: ProviderUpdate) -> str:
    """Return the webhook URL that the provider has for a task, "" if it has none. The item may be of any form."""
    webhook_config = (update.config or {}).get("webhook_config")
    endpoint = webhook_config.get("endpoint") if isinstance(webhook_config, dict) else webhook_config
    return endpoint if isinstance(endpoint, str) and "://" in endpoint else ""


def _names_task(update: ProviderUpdate, row: Mapping[str, Any]) -> bool:
    """Return whether the webhook URL that the provider has is that of this task and attempt."""
    attempt = f"?attempt={row['attempt']}" if row["attempt"] > 1 else ""
    return _webhook_url(update).endswith(f"/{row['uid']}{attempt}")


def _has_same_request(update: ProviderUpdate, row: Mapping[str, Any], request: Any) -> bool:
    """Return whether the provider's task has no webhook URL, and the model, type and input of this one's request."""
    return (
        not _webhook_url(update)
        and update.model in (None, "", row["model"])
        and update.task_type in (None, "", row["task_type"])
        and update.input == request
    )
