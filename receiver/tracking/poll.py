"""Attending to one due task: send it, look for it, look at it, or give it up."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from models import TERMINAL, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.domain.schedules import poll_delay
from receiver.domain.transitions import TaskState
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import CallerKey, CallPurpose, Found, MalformedUpdate, Missing, NoAnswer, Provider
from receiver.storage.database import Database
from receiver.storage.leases import Postponement, postpone
from receiver.storage.tasks import assigned_provider_ids, task_by_uid, unconfirmed_tasks
from receiver.storage.transaction import DueTask
from receiver.telemetry import get_logger
from receiver.tracking.apply import Applied, Applier, Arrival
from receiver.tracking.submit import FIRST_SEARCH_SECONDS, Outgoing, Submitter
from receiver.tracking.task_references import TaskReferences

log = get_logger("tracking.poll")

_LONGEST_SEARCH_SECONDS = 60.0
_SHORT_PAUSE_SECONDS = 1.0
"""A pause that calls simply wait for."""
_MISSING_POLLS = 3
"""How often the provider may say that it does not know the task before that is believed."""


class Poller:
    """Does what a due task needs. Every call ends with the task's `due_at` moved on, or the task ended."""

    def __init__(
        self,
        database: Database,
        applier: Applier,
        submitter: Submitter,
        providers: Mapping[str, Provider],
        keyring: KeyRing,
        *,
        unknown_seconds: float,
    ) -> None:
        self._database = database
        self._writer = database.writer
        self._applier = applier
        self._submitter = submitter
        self._providers = providers
        self._references = TaskReferences(database)
        self._keyring = keyring
        self._unknown_seconds = unknown_seconds

    def may_send(self) -> bool:
        """Say whether anything can be sent now: no if every provider wants to be left alone for a while."""
        return any(each.paused_for() <= _SHORT_PAUSE_SECONDS for each in self._providers.values())

    async def attend(self, due: DueTask) -> None:
        """Act on a claimed task."""
        task = due.state
        if task.provider_task_id is not None:
            await self._poll(task)
            return
        row = await self._row(task.uid)
        if row is None or row["status"] in TERMINAL or row["attempt"] != task.attempt:
            return
        if task.submission != Submission.WAITING:
            await self._search(due, row)
        elif not await self._give_up(task):
            await self._submitter.send(task.provider, _outgoing(row))

    async def poll_now(self, uid: str) -> None:
        """Look at a task at the provider now, whenever it is due; does nothing for one that has no id there."""
        task = (await self._writer.run(lambda tx: tx.load_tasks([uid]))).get(uid)
        if task is not None and task.provider_task_id is not None and task.status not in TERMINAL:
            await self._poll(task)

    async def _row(self, uid: str) -> Mapping[str, Any] | None:
        rows = await self._database.read(task_by_uid(uid))
        return rows[0] if rows else None

    async def _poll(self, task: TaskState) -> None:
        provider, secret = self._providers[task.provider], self._keyring.hook_secret(task.uid)
        outcome = await provider.fetch(
            str(task.provider_task_id), attempt=task.attempt, hidden=secret, caller=_caller(task.organization_id)
        )
        match outcome:
            case Found(update):
                applied = await self._apply(task, update)
                heard = applied.changed
            case Missing() if task.poll_count >= _MISSING_POLLS:
                await self._fail(task, "provider_lost_task", "the provider does not know the task")
                return
            case Missing() | NoAnswer():
                retry_after = outcome.retry_after if isinstance(outcome, NoAnswer) else None
                log.warning("a look brought nothing", task=task.uid, message=outcome.message)
                await self._postpone_poll(task, retry_after)
                heard = False
        if not heard:
            await self._give_up(task)

    async def _give_up(self, task: TaskState) -> bool:
        """Fail a task that nobody heard of for too long; say whether that was so."""
        if utc_now() < self._applier.poll_schedule.deadline(task.last_update_at):
            return False
        waited = f"nobody heard of it for {self._applier.poll_schedule.timeout:g} s"
        await self._fail(task, "timed_out", waited)
        return True

    async def _search(self, due: DueTask, row: Mapping[str, Any]) -> None:
        """Look for a task whose create call had no answer; never send it again, it would be paid for twice."""
        task = due.state
        begun = due.submitted_at or row["created_at"]
        update = await self._find(row)
        if update is not None:
            await self._apply(task, update)
        elif utc_now() >= begun + timedelta(seconds=self._unknown_seconds):
            await self._fail(
                task,
                "submission_unknown",
                "the provider gave no answer to the create call, and nothing was heard of the task since; "
                "it may have been made, and charged, all the same",
            )
        else:
            delay = poll_delay(task.poll_count, first=FIRST_SEARCH_SECONDS, longest=_LONGEST_SEARCH_SECONDS)
            await self._postpone(task, Submission.UNKNOWN, min(delay, self._unknown_seconds))

    async def _find(self, row: Mapping[str, Any]) -> ProviderUpdate | None:
        """Look the task up in the provider's history: by our own address in it, or else by what was asked."""
        provider = self._providers[row["provider"]]
        since = (row["submitted_at"] or row["created_at"]) - timedelta(seconds=60)
        listed = await provider.history(model=row["model"], since=since, caller=_caller(row["organization_id"]))
        candidates = []
        for item in listed or ():
            try:
                candidates.append(provider.parse_task(item, attempt=row["attempt"]))
            except MalformedUpdate:
                continue
        addressed = [update for update in candidates if _names_task(update, row)]
        if addressed:
            return addressed[0]
        return await self._only_match(row, candidates)

    async def _only_match(self, row: Mapping[str, Any], candidates: list[ProviderUpdate]) -> ProviderUpdate | None:
        """Return the one task that was asked for in these words and that is nobody else's; None if in doubt."""
        asked = await self._references.as_sent(row)
        alike = [update for update in candidates if _asks_the_same(update, row, asked)]
        ids = [update.provider_task_id for update in alike]
        assigned = await self._database.read(assigned_provider_ids(row["provider"], ids))
        taken = {each["provider_task_id"] for each in assigned}
        free = [update for update in alike if update.provider_task_id not in taken]
        rivals = await self._database.read(unconfirmed_tasks(row["provider"], row["model"], row["uid"]))
        alike_rivals = [rival for rival in rivals if await self._references.as_sent(rival) == asked]
        return free[0] if len(free) == 1 and not alike_rivals else None

    async def _apply(self, task: TaskState, update: ProviderUpdate) -> Applied:
        arrival = Arrival(provider=task.provider, task_uid=task.uid, update=replace(update, attempt=task.attempt))
        return await self._writer.write(self._applier.apply, arrival, bounded=False)

    async def _fail(self, task: TaskState, code: str, message: str) -> None:
        log.warning("gave up", task=task.uid, code=code)
        update = ProviderUpdate(
            source=Source.POLL,
            status=TaskStatus.FAILED,
            error={"code": code, "message": message, "raw_message": "", "detail": None},
            by_provider=False,
            is_snapshot=False,
            last_update_at=task.last_update_at,
            retryable=False,
        )
        await self._apply(task, update)

    async def _postpone_poll(self, task: TaskState, retry_after: float | None) -> None:
        now = utc_now()
        due_at = self._applier.poll_schedule.after_poll(task.poll_count + 1, task.last_update_at, now)
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


def _names_task(update: ProviderUpdate, row: Mapping[str, Any]) -> bool:
    endpoint = ((update.config or {}).get("webhook_config") or {}).get("endpoint") or ""
    attempt = f"?attempt={row['attempt']}" if row["attempt"] > 1 else ""
    return str(endpoint).endswith(f"/{row['uid']}{attempt}")


def _asks_the_same(update: ProviderUpdate, row: Mapping[str, Any], asked: Any) -> bool:
    endpoint = ((update.config or {}).get("webhook_config") or {}).get("endpoint")
    return (
        not endpoint
        and update.model in (None, "", row["model"])
        and update.task_type in (None, "", row["task_type"])
        and update.input == asked
    )
