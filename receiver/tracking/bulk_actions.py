"""Cancels, retries or refreshes every task that matches a filter: in batches, each task through the tracker, once.

A batch is written before it is acted on (`receiver.storage.bulk_actions`). If the process dies in the middle, the next
one acts on the same batch again, and each task's attempt tells what was done: a retry of a task that is past the
planned attempt does nothing, a task that is cancelled is not cancelled again, and one that is due twice is polled
twice. A refresh makes tasks due, no faster than half of the provider's limit would poll them. What cannot be done at
the moment (no database, too many open tasks, a provider that does not answer) is left for later; what is refused is
counted by code.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from models import TERMINAL, BulkActionKind, BulkActionStatus, TaskStatus
from receiver.clock import utc_now
from receiver.domain.audit_values import difference
from receiver.domain.bulk_action_views import read_filter, stored_filter
from receiver.errors import (
    Conflict,
    LimitReached,
    NotFound,
    OrganizationRateLimited,
    OutcomeUnknown,
    ProviderRefused,
    RingbackError,
    StorageUnavailable,
    Unavailable,
    WriterFull,
)
from receiver.storage.audit import Actor, audit
from receiver.storage.bulk_actions import (
    BatchClaim,
    BatchOutcome,
    Planned,
    cancel_action,
    claim_action,
    count_matching,
    count_running_actions,
    give_back_action,
    insert_action,
    next_to_act_on,
    running_actions,
    settle_batch,
    tasks_to_act_on,
)
from receiver.storage.database import Database
from receiver.storage.organizations import is_below
from receiver.storage.tasks import TaskFilter
from receiver.storage.transaction import Transaction
from receiver.tracking.tracker import Tracker

Row = Mapping[str, Any]
Admit = Callable[[int], Awaitable[AbstractContextManager[object]]]
"""Admits one more open task of an organization. Raises `OrganizationRateLimited`."""

BATCH = 32
"""How many tasks are acted on together."""
MOST_RUNNING = 10
"""Of one organization."""
_LATER_SECONDS = (1.0, 5.0, 20.0, 60.0)
"""The waits before a task is tried again that is being sent, or whose provider did not answer; then it counts as
failed."""
_FULL_SECONDS = 5.0
"""The wait while the organization may not have more open tasks, or nothing can be stored."""
_LEASE_MARGIN_SECONDS = 60.0
_REFRESH_SHARE = 0.5
"""Of the provider's limit: how much of it the polls of a refresh may take."""
_OTHER_ATTEMPT = "attempt_changed"
"""The code for a task that began another attempt since a batch was planned whose process died."""


class _Result(NamedTuple):
    """What became of one task: it was acted on, refused with a `code`, or is left `later` for this many seconds."""

    code: str = ""
    later: float | None = None
    tries: int = 0


class BulkActions:
    """Creates bulk actions and carries them out.

    `call_seconds` bounds how long acting on one task takes; `calls_per_second` is the provider's limit.
    """

    def __init__(
        self, database: Database, tracker: Tracker, admit: Admit, *, call_seconds: float, calls_per_second: float
    ) -> None:
        self._database = database
        self._tracker = tracker
        self._admit = admit
        self._lease = timedelta(seconds=call_seconds + _LEASE_MARGIN_SECONDS)
        self._refreshes_per_second = calls_per_second * _REFRESH_SHARE
        self.asked = asyncio.Event()
        """Set when there may be something to do, to wake the worker."""

    async def count(self, organization_id: int, kind: BulkActionKind, given: Mapping[str, Any]) -> int:
        """Return exactly how many tasks match a filter and may be acted on now."""
        return (await self._matching(organization_id, kind, given, utc_now()))[0]

    async def create(self, uid: str, kind: BulkActionKind, given: Mapping[str, Any], by: Actor) -> dict[str, Any]:
        """Begin to act on the tasks that match; return the row. Raises `LimitReached` if as many run as may."""
        now = utc_now()
        matched, newest = await self._matching(by.organization_id, kind, given, now)
        stored = stored_filter(given)
        row = {
            "uid": uid,
            "organization_id": by.organization_id,
            "kind": kind,
            "requested_by": by.name,
            "status": BulkActionStatus.RUNNING if matched else BulkActionStatus.DONE,
            "filter": stored,
            "matched": matched,
            "done": 0,
            "failed": None,
            "cursor": 0,
            "newest": newest,
            "batch": None,
            "due_at": now if matched else None,
            "leased": False,
            "created_at": now,
            "ended_at": None if matched else now,
        }

        async def insert(tx: Transaction) -> int | LimitReached:
            if not await is_below(tx, by.organization_id, count_running_actions, MOST_RUNNING):
                message = (
                    f"{MOST_RUNNING} bulk actions of the organization run: wait until one has ended, or cancel one"
                )
                return LimitReached(message, param="running_bulk_actions")
            await audit(tx, by, f"task.{kind}_many", uid, difference(None, {**stored, "tasks": matched}))
            return await insert_action(tx, row)

        key = await self._database.writer.run(insert)
        self.asked.set()
        return {**row, "id": key}

    async def cancel(self, action: Row, by: Actor) -> None:
        """End a running bulk action: no further batch begins. Raises `Conflict` if it has ended."""
        now = utc_now()

        async def work(tx: Transaction) -> bool:
            if not await cancel_action(tx, action["id"], now):
                return False
            ended = ({"status": action["status"]}, {"status": BulkActionStatus.CANCELLED})
            await audit(tx, by, "bulk_action.cancel", action["uid"], ended)
            return True

        if not await self._database.writer.run(work):
            raise Conflict("the bulk action has ended already")

    async def running(self) -> list[dict[str, Any]]:
        """Return the bulk actions that have not ended, also those that other processes act on."""
        return await self._database.read(running_actions())

    async def advance(self, action: Row) -> None:
        """Act on the next batch of a bulk action (a row of `running`) that is due, unless another process does."""
        was_planned = bool(action["batch"])
        claim, is_last = await self._plan(action)
        if not await self._database.writer.run(lambda tx: claim_action(tx, claim, utc_now()), bounded=False):
            return
        try:
            outcome = await self._act_on(action, claim.batch, is_last=is_last, was_planned=was_planned)
        except BaseException:
            await self._database.writer.run(lambda tx: give_back_action(tx, claim, utc_now()), bounded=False)
            raise
        await self._database.writer.run(lambda tx: settle_batch(tx, claim, outcome, utc_now()), bounded=False)

    async def _matching(
        self, organization_id: int, kind: str, given: Mapping[str, Any], now: datetime
    ) -> tuple[int, int]:
        (row,) = await self._database.read(count_matching(kind, _filter(organization_id, given), now))
        return row["count"], row["newest"] or 0

    async def _plan(self, action: Row) -> tuple[BatchClaim, bool]:
        """Return the claim of the next batch, which is the present one if it was not finished, and if it is the last.

        A batch that is the present one is taken for the last only when the page after it turns out to be empty.
        """
        cursor, batch, is_last = action["cursor"], action["batch"], False
        if not batch:
            wanted = _filter(action["organization_id"], read_filter(action["filter"]))
            rows = await self._database.read(next_to_act_on(action, wanted, BATCH + 1))
            is_last = len(rows) <= BATCH
            rows = rows[:BATCH]
            batch = [{"task": row["uid"], "attempt": row["attempt"], "tries": 0} for row in rows]
            cursor = rows[-1]["id"] if rows else cursor
        until = utc_now() + self._lease
        claim = BatchClaim(
            action_id=action["id"], cursor_was=action["cursor"], cursor=cursor, batch=batch, lease_until=until
        )
        return claim, is_last

    async def _act_on(self, action: Row, batch: Sequence[Planned], *, is_last: bool, was_planned: bool) -> BatchOutcome:
        uids = [each["task"] for each in batch]
        rows = await self._database.read(tasks_to_act_on(action["organization_id"], uids)) if uids else []
        found = {row["uid"]: row for row in rows}
        pause = 0.0
        if action["kind"] == BulkActionKind.REFRESH:
            results, pause = await self._refresh(batch, found), len(found) / self._refreshes_per_second
        else:
            acting = [
                self._act(action["kind"], each, found.get(each["task"]), was_planned=was_planned) for each in batch
            ]
            results = await asyncio.gather(*acting)
        tried = list(zip(batch, results, strict=True))
        left = [{**each, "tries": result.tries} for each, result in tried if result.later is not None]
        return BatchOutcome(
            done=sum(not result.code and result.later is None for result in results),
            failed=Counter(result.code for result in results if result.code),
            left=left,
            due_at=utc_now() + timedelta(seconds=max([pause, *(result.later or 0.0 for result in results)])),
            is_last=is_last and not left,
        )

    async def _refresh(self, batch: Sequence[Planned], found: Collection[str]) -> list[_Result]:
        """Have tasks polled soon. One that has ended meanwhile is not, and has no later news that would matter."""
        try:
            await self._tracker.refresh_soon(found)
        except (StorageUnavailable, WriterFull, OutcomeUnknown):
            return [_Result(later=_FULL_SECONDS, tries=each["tries"]) for each in batch]
        return [_Result("" if each["task"] in found else "task_not_found") for each in batch]

    async def _act(self, kind: str, planned: Planned, task: Row | None, *, was_planned: bool) -> _Result:
        """Act on one task, if it is still there. Never raises for what the rules or the provider refuse."""
        if task is None:
            return _Result("task_not_found")
        tries = planned["tries"]
        try:
            if kind == BulkActionKind.RETRY:
                return await self._retry(task, planned["attempt"])
            return await self._cancel(task, planned["attempt"], was_planned=was_planned)
        except (StorageUnavailable, WriterFull, OutcomeUnknown, OrganizationRateLimited):
            return _Result(later=_FULL_SECONDS, tries=tries)
        except RingbackError as refusal:
            may_pass = isinstance(refusal, Unavailable) or (isinstance(refusal, Conflict) and _is_being_sent(task))
            if may_pass and tries < len(_LATER_SECONDS):
                return _Result(later=_LATER_SECONDS[tries], tries=tries + 1)
            return _Result(str(refusal.code))

    async def _retry(self, task: Row, attempt: int) -> _Result:
        if task["attempt"] == attempt:
            with await self._admit(task["organization_id"]):
                await self._tracker.retry(task, past_attempt=attempt)
        return _Result()

    async def _cancel(self, task: Row, attempt: int, *, was_planned: bool) -> _Result:
        if task["status"] == TaskStatus.CANCELLED:
            return _Result()
        if was_planned and task["attempt"] != attempt:
            # It may have been cancelled before the crash, and retried by its client since.
            return _Result(_OTHER_ATTEMPT)
        try:
            await self._tracker.cancel(task)
        except (Conflict, NotFound, ProviderRefused):
            # It may have been cancelled at the provider before, which does not do that twice.
            if not was_planned or _is_being_sent(task):
                raise
            now = await self._tracker.refresh(task["organization_id"], task["uid"])
            if now["status"] != TaskStatus.CANCELLED:
                raise
        return _Result()


def _is_being_sent(task: Row) -> bool:
    """Return whether a task that could not be cancelled was being sent: it can be as soon as that is over."""
    return task["status"] not in TERMINAL and task["provider_task_id"] is None


def _filter(organization_id: int, given: Mapping[str, Any]) -> TaskFilter:
    names = {"run_id": "run_uid"}
    values = {names.get(name, name): value for name, value in given.items() if name != "all"}
    return TaskFilter(organization_id=organization_id, **values)
