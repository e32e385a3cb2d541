"""Searches the provider's list for tasks whose create calls got no answer.

Why they are searched for. When a create call is cut off after the request was sent (or answered with 500, 502, 504 or
nonsense), the provider may or may not have made the task, and may or may not charge for it. Sending it again could pay
twice, so Ringback never does. It sets `submission` to `unknown` and waits for proof that the provider has the task: a
webhook to the task's own URL (`receiver.inbound`), or an entry of the provider's list (`receiver.domain.lost_creates`).

What proves that the provider does not have it. Only a list that is complete back to the moment of the create call, and
not one look alone: lists lag behind. A create is given up when at least two complete looks did not find it, the first
and the last of them some time apart, and the last one begun when the time of its kind had passed since the call. So
after a long stop, or a long failure of the provider, the first look ends nothing. While the provider does not answer,
or its list is cut, the search goes on at growing delays, until `RINGBACK_TASK_LIMIT_SECONDS`.

- The outcome of the call is unknown: the task fails with `submission_unknown` (`RINGBACK_SUBMISSION_UNKNOWN_SECONDS`).
  It is looked for again several times during the following day, and heals if it is found. The same for a task that was
  restored from a backup and may have been sent at any time since (`receiver.storage.after_restore`).
- The provider said that the call failed (a 500): this attempt failed, with the provider's own words, and another one
  follows if there is one left (`RINGBACK_FAILED_CREATE_SECONDS`). If there is none, it is looked for again too.

One look serves all tasks of one model and account that are due: the first reads the list, and claims the others.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from models import Submission
from receiver.clock import earliest_elsewhere, utc_now
from receiver.domain.create_calls import (
    SUBMISSION_UNKNOWN,
    failed_attempt,
    failed_status,
    known_words,
    latest_start,
    searched_until,
    sent_until,
)
from receiver.domain.lost_creates import SKEW_SECONDS, WIDE_SKEW_SECONDS, ListedEntry, LostCreate, assign
from receiver.domain.schedules import poll_delay
from receiver.domain.task_state import TaskState
from receiver.domain.updates import ProviderUpdate, Source
from receiver.errors import Unavailable
from receiver.providers import CallerKey, CallPurpose, Found, NoAnswer, Providers
from receiver.storage.database import Database
from receiver.storage.lost_creates import (
    SubmittedBetween,
    assigned_provider_ids,
    claim_lost_creates,
    creates_without_answer,
    is_ended,
    lost_creates,
    name_earlier_attempt,
)
from receiver.telemetry.log import get_logger
from receiver.tracking.call_spans import traced_call, traced_search
from receiver.tracking.conclusions import Conclusions, receipt_body
from receiver.tracking.listed_tasks import ListedTasks, Requests
from receiver.tracking.submit import FIRST_SEARCH_SECONDS, TASK_TAKEN, reference_of, taken_message

log = get_logger("tracking.search")

_LONGEST_SEARCH_SECONDS = 300.0
_TOGETHER = timedelta(hours=1)
"""One look serves creates that began within this time: for others the list would have to be read from too far back."""
_MOST_AT_ONCE = 1000
_MOST_COMPARED = 10_000
"""If more creates than this have no answer, those with equal requests are not told apart: some would be left out."""

Row = Mapping[str, Any]
ListName = tuple[str, int | None, str]
"""The name of a provider, the row key of an account there (None: that of the environment), and a model."""
CountException = Callable[[TaskState, Exception], Coroutine[Any, Any, None]]


class _Look(Struct):
    """One look at the list of an account: for which creates it is made, which are acted on, and when it began."""

    provider: str
    account_id: int | None
    model: str
    began: datetime
    rows: dict[str, Row]
    claimed: dict[str, TaskState]
    requests: dict[str, bytes] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)


class Searcher:
    """Finds lost creates. `call_seconds` is the longest time that a create call takes, and that of a lease."""

    def __init__(
        self,
        database: Database,
        conclusions: Conclusions,
        providers: Providers,
        count_exception: CountException,
        *,
        unknown_seconds: float,
        failed_seconds: float,
        limit_seconds: float,
        call_seconds: float,
    ) -> None:
        self._database = database
        self._conclusions = conclusions
        self._providers = providers
        self._count_exception = count_exception
        self._requests = Requests(database)
        self._unknown_seconds = unknown_seconds
        self._failed_seconds = failed_seconds
        self._limit = timedelta(seconds=limit_seconds)
        self._call_seconds = call_seconds
        self._waiting: dict[ListName, dict[str, TaskState]] = {}

    async def search(self, task: TaskState) -> None:
        """Search for a claimed task, or leave it to the look at the same list that is under way and another follows."""
        name = (task.provider, task.account_id, task.model)
        if (waiting := self._waiting.get(name)) is not None:
            waiting[task.uid] = task
            return
        waiting = self._waiting[name] = {task.uid: task}
        try:
            while waiting:
                claimed = dict(waiting)
                waiting.clear()
                waiting.update(await self._look_for(name, claimed))
        finally:
            del self._waiting[name]

    async def search_now(self, task: TaskState) -> None:
        """Look for one task whether or not it is due, and decide nothing about it if it is not found."""
        rows = await self._database.read(lost_creates([task.uid]))
        if rows and rows[0]["submission"] in (Submission.SENDING, Submission.UNKNOWN):
            look = _Look(task.provider, task.account_id, task.model, utc_now(), rows={task.uid: rows[0]}, claimed={})
            await self._read_and_apply(look)

    async def _look_for(self, name: ListName, claimed: dict[str, TaskState]) -> dict[str, TaskState]:
        """Look for claimed tasks, and decide about each; return those that began too late for the same look."""
        rows = await self._database.read(lost_creates(claimed))
        if not rows:
            return {}
        last = rows[0]["submitted_at"] + _TOGETHER
        own: dict[str, Row] = {row["uid"]: row for row in rows if row["submitted_at"] <= last}
        later = {row["uid"]: claimed[row["uid"]] for row in rows if row["uid"] not in own}
        acted_on = {uid: claimed[uid] for uid in own}
        between = SubmittedBetween(*name, rows[0]["submitted_at"], last)
        look = _Look(*name, utc_now(), own, acted_on | await self._claim_others(between))
        try:
            is_complete = await self._read_and_apply(look)
        except Unavailable:  # the database's: the leases run out, and the tasks are claimed again
            raise
        except Exception as error:
            for task in look.claimed.values():
                await self._count_exception(task, error)
            return later
        for uid, task in look.claimed.items():
            if uid not in look.found:
                await self._not_found(task, look.rows.get(uid), look.began, is_complete=is_complete)
        return later

    async def _claim_others(self, between: SubmittedBetween) -> dict[str, TaskState]:
        now = utc_now()
        until = now + timedelta(seconds=self._call_seconds)
        return await self._database.writer.run(
            lambda tx: claim_lost_creates(tx, between, now, until, _MOST_AT_ONCE), bounded=False
        )

    async def _read_and_apply(self, look: _Look) -> bool:
        """Ask the provider for the creates, and apply what it has; return whether it has shown all that it has."""
        can = self._providers.capabilities(look.provider)
        if can.finds:
            return await self._find_each(look)
        return can.lists and await self._read_list(look)

    async def _find_each(self, look: _Look) -> bool:
        """Ask for each create by its reference; return whether the provider has answered for all."""
        is_answered = True
        provider = await self._providers.of(look.provider, look.account_id)
        for uid, row in look.rows.items():
            caller = CallerKey(row["organization_id"], CallPurpose.POLL)
            attempt = row["attempt"]
            call = provider.find(
                reference_of(uid, attempt),
                model=look.model,
                task_type=row["task_type"],
                attempt=attempt,
                caller=caller,
            )
            ids = {"task_id": uid, "provider": look.provider, "model": look.model, "attempt": attempt}
            match await traced_call("search task", call, row["trace_context"], **ids):
                case Found(update):
                    await self._apply(look, row, update, is_certain=True)
                case NoAnswer():
                    is_answered = False
        return is_answered

    async def _read_list(self, look: _Look) -> bool:
        """Read the list, and apply what it has of the creates; return whether it was complete."""
        look.rows |= await self._open_creates(look)
        look.requests = await self._requests.digests(look.model, look.rows)
        provider = await self._providers.of(look.provider, look.account_id)
        listed = ListedTasks(provider, look.model, look.rows, look.requests)
        first, last = _bounds(look.rows.values())
        skew = WIDE_SKEW_SECONDS if self._gives_up(look) else SKEW_SECONDS
        some = next(iter(look.rows.values()))
        reading = provider.history(
            model=look.model,
            since=earliest_elsewhere(first) - timedelta(seconds=skew),
            until=last + timedelta(seconds=self._call_seconds + WIDE_SKEW_SECONDS),
            keep=listed.wants,
            caller=CallerKey(some["organization_id"], CallPurpose.POLL),
        )
        searched = [row for uid, row in look.rows.items() if uid in look.claimed] or [some]
        history = await traced_search(reading, look.provider, look.model, searched)
        await listed.read(history.tasks)
        await self._apply_named(look, listed)
        await self._apply_equal(look, listed)
        return history.is_complete and not listed.is_unreadable

    async def _open_creates(self, look: _Look) -> dict[str, Row]:
        """Return the creates of the look, and those of the same time that others act on, as they are now.

        An entry with the same request may be of one of these.
        """
        first, last = _bounds(look.rows.values())
        apart = timedelta(seconds=self._call_seconds + 2 * SKEW_SECONDS)
        between = SubmittedBetween(look.provider, look.account_id, look.model, first - apart, last + apart)
        own = lost_creates(look.claimed.keys() | look.rows.keys())
        queries = (creates_without_answer(between, _MOST_COMPARED), own)
        return {row["uid"]: row for query in queries for row in await self._database.read(query)}

    def _gives_up(self, look: _Look) -> bool:
        """Return whether one of the creates may be given up if it is not found now: then the clocks are not trusted."""
        claimed = (row for uid, row in look.rows.items() if uid in look.claimed)
        return any(look.began >= _latest_start(row) + timedelta(seconds=self._seconds(row)) for row in claimed)

    def _seconds(self, row: Row) -> float:
        """Return how long after its create call a task is searched for at least."""
        return self._unknown_seconds if failed_status(row["error"]) is None else self._failed_seconds

    async def _apply_named(self, look: _Look, listed: ListedTasks) -> None:
        """Apply the entries whose webhook URL names a create."""
        for uid, by_attempt in listed.named.items():
            row = look.rows[uid]
            for number, update in by_attempt.items():
                if number == row["attempt"]:
                    await self._apply(look, row, update, is_certain=True)
                elif number < row["attempt"]:
                    await self._name_earlier(look, uid, number, update)

    async def _apply_equal(self, look: _Look, listed: ListedTasks) -> None:
        """Apply entries without a webhook URL that have the request of a create, where it is clear whose they are."""
        if not listed.unnamed:
            return
        # Read after the list: what was made since the first reading may be in the list, and is not to be taken.
        rows = await self._open_creates(look)
        if len(rows) >= _MOST_COMPARED:
            return
        new = {uid: row for uid, row in rows.items() if uid not in look.requests}
        look.requests |= await self._requests.digests(look.model, new)
        entries = await self._free(look.provider, listed.unnamed)
        creates = [
            LostCreate(
                uid=uid,
                attempt=row["attempt"],
                request=look.requests[uid],
                submitted_at=row["submitted_at"],
                submitted_until=sent_until(row["error"]),
                is_pending=uid not in look.claimed and row["submission"] == Submission.SENDING,
            )
            for uid, row in rows.items()
            if uid in look.requests and uid not in look.found
        ]
        found = assign(creates, entries, call_seconds=self._call_seconds)
        updates = {str(update.provider_task_id): update for _, update in listed.unnamed}
        for uid, provider_task_id in found.items():
            await self._apply(look, rows[uid], updates[provider_task_id], is_certain=False)

    async def _free(self, provider: str, unnamed: list[tuple[bytes, ProviderUpdate]]) -> list[ListedEntry]:
        """Return those of these entries that belong to no task, and to no earlier attempt of one."""
        ids = [str(update.provider_task_id) for _, update in unnamed]
        taken: set[str] = set()
        for start in range(0, len(ids), _MOST_AT_ONCE):
            some = ids[start : start + _MOST_AT_ONCE]
            rows = await self._database.read(assigned_provider_ids(provider, some))
            taken |= {row["provider_task_id"] for row in rows}
        return [
            ListedEntry(provider_task_id=str(update.provider_task_id), request=request, created_at=update.created_at)
            for request, update in unnamed
            if update.provider_task_id not in taken
        ]

    async def _apply(self, look: _Look, row: Row, update: ProviderUpdate, *, is_certain: bool) -> None:
        task = look.claimed.get(row["uid"]) or await self._state(row["uid"])
        if task is None or task.attempt != row["attempt"]:
            return
        try:
            applied = await self._conclusions.apply(task, update, keeps_receipt=is_ended(row))
        except Unavailable:
            raise
        except Exception as error:  # of this task alone: the others of the look go on
            look.found.add(task.uid)
            await self._count_exception(task, error)
            return
        if not applied.is_taken:
            look.found.add(task.uid)
            ids = {"task_id": task.uid, "provider": task.provider, "provider_task_id": update.provider_task_id}
            log.info("lost create found", **ids, status=applied.status)
        elif is_certain and not is_ended(row):  # somebody adopted it before it was found
            look.found.add(task.uid)
            await self._conclusions.fail(task, TASK_TAKEN, taken_message(str(update.provider_task_id)))

    async def _state(self, uid: str) -> TaskState | None:
        return (await self._database.writer.run(lambda tx: tx.load_tasks([uid]), bounded=False)).get(uid)

    async def _name_earlier(self, look: _Look, uid: str, number: int, update: ProviderUpdate) -> None:
        name, body, now = str(update.provider_task_id), receipt_body(update)(), utc_now()
        is_new = await self._database.writer.run(
            lambda tx: name_earlier_attempt(tx, look.provider, uid, number, name, body, now), bounded=False
        )
        if is_new:
            ids = {"task_id": uid, "attempt": number, "provider": look.provider, "provider_task_id": name}
            log.warning("earlier attempt was made at the provider", **ids)

    async def _not_found(self, task: TaskState, row: Row | None, began: datetime, *, is_complete: bool) -> None:
        """Decide about a claimed task that is not in the list."""
        if row is None or row["attempt"] != task.attempt:
            return
        can = self._providers.capabilities(task.provider)
        is_silent = not (can.lists or can.finds)  # nothing but its webhook can tell of it
        if is_ended(row):
            if is_silent:
                await self._conclusions.look_no_more(task)
            else:
                await self._conclusions.look_later(task, is_answered=is_complete)
            return
        if is_complete:
            task = replace(task, missing_count=task.missing_count + 1, missing_since=task.missing_since or began)
        status = failed_status(row["error"])
        seconds = self._seconds(row)
        left = self._seconds_left(task, row, began, seconds)
        if is_complete and left <= 0:
            await self._give_up(task, row, status)
        elif is_silent and began >= _latest_start(row) + timedelta(seconds=seconds):
            await self._fail_as_unknown(task, row, "it has no list of its tasks")
        elif began >= _latest_start(row) + self._limit:
            await self._fail_as_unknown(task, row, "its list could not be read to its end all that time")
        else:
            first = FIRST_SEARCH_SECONDS if status is None else min(FIRST_SEARCH_SECONDS, seconds / 4)
            delay = poll_delay(task.poll_count, first=first, longest=_LONGEST_SEARCH_SECONDS)
            await self._conclusions.postpone(task, Submission.UNKNOWN, min(delay, left) if left > 0 else delay)

    def _seconds_left(self, task: TaskState, row: Row, began: datetime, seconds: float) -> float:
        """Return for how long a create may not be given up yet; 0 or less if this look was enough."""
        looks = (task.missing_count, task.missing_since)
        return (searched_until(row["submitted_at"], row["error"], seconds, looks, began) - began).total_seconds()

    async def _give_up(self, task: TaskState, row: Row, status: int | None) -> None:
        if status is None:
            finds = self._providers.capabilities(task.provider).finds
            reason = "it was not found there by our reference" if finds else "its complete list does not have the task"
            await self._fail_as_unknown(task, row, reason)
        else:
            words = str((row["error"] or {}).get("message"))
            log.warning("create call failed", task_id=task.uid, provider=task.provider, error_code=status)
            failure = failed_attempt(status, words, last_update_at=task.last_update_at)
            # The list may be behind, so this is a conclusion of ours: the submission stays unknown.
            await self._conclusions.apply(task, replace(failure, source=Source.POLL, by_provider=False))

    async def _fail_as_unknown(self, task: TaskState, row: Row, reason: str) -> None:
        what, detail = f"the provider did not answer the create call{known_words(row['error'])}", None
        if (until := sent_until(row["error"])) is not None:
            what = "the database was restored from a backup, so it is not known whether the task was sent since that"
            detail = {"until": until.isoformat()}  # for the later looks
        message = (
            f"{what}, and {reason}; it may have been created, and charged, all the same: check that before you retry it"
        )
        await self._conclusions.fail(task, SUBMISSION_UNKNOWN, message, detail)


def _bounds(rows: Iterable[Row]) -> tuple[datetime, datetime]:
    """Return when the first of the create calls may have begun, and when the last."""
    rows = list(rows)
    return min(row["submitted_at"] for row in rows), max(_latest_start(row) for row in rows)


def _latest_start(row: Row) -> datetime:
    return latest_start(row["submitted_at"], row["error"])
