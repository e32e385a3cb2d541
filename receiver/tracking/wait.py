"""Waits for several tasks together: one wait, however many they are."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from models import TERMINAL
from receiver.domain.ids import is_id
from receiver.errors import NotFound
from receiver.events.after_commit import Waiting
from receiver.events.wakeable import STEP_SECONDS
from receiver.storage.database import Database
from receiver.storage.task_standings import standings_by_provider_ids, standings_of

TaskStanding = Mapping[str, Any]
_MOST_NAMED = 10
"""Of ids that do not exist, in an error."""
_NONE: frozenset[str] = frozenset()
"""One for all waits in which nothing has ended."""


class TaskWaits:
    """Waits until any or all of several tasks have ended."""

    def __init__(self, database: Database, waiting: Waiting) -> None:
        self._database = database
        self._waiting = waiting

    async def wait(
        self, organization_id: int, task_ids: Sequence[str], seconds: float, *, for_all: bool
    ) -> tuple[list[TaskStanding], bool]:
        """Return how far these tasks are, in their order, and whether enough of them have ended.

        That is when any of them has, or all have, or as it is after `seconds` or when the service stops. An id is
        Ringback's or the provider's. Raises `NotFound` that names those that do not exist.
        """
        uids = await self._find(organization_id, task_ids)
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        ended = _NONE
        with self._waiting.watch_several(uids) as watch:
            changed: Collection[str] = watch.uids
            while True:
                # Only what has changed is read: of a thousand tasks, each that ends wakes this wait. No rows are held
                # while it waits, so all are read once more for the answer.
                rows = await self._standings(organization_id, changed)
                ended = (ended - rows.keys()).union(_ended(rows)) or _NONE
                if changed is watch.uids:
                    uids = _those_in(rows, uids)  # others were purged
                is_over = ended.issuperset(uids) if for_all else not ended.isdisjoint(uids)
                left = end - loop.time()
                if is_over or left < STEP_SECONDS or self._waiting.closed:
                    if rows.keys() >= set(uids):
                        return list(map(rows.__getitem__, uids)), is_over
                    changed = watch.uids
                    continue
                del rows
                changed = await watch.changed(left)

    async def _standings(self, organization_id: int, uids: Collection[str]) -> dict[str, TaskStanding]:
        rows = await self._database.read(standings_of(organization_id, uids))
        return {row["uid"]: row for row in rows}

    async def _find(self, organization_id: int, task_ids: Sequence[str]) -> list[str]:
        """Return Ringback's ids of these tasks. Raises `NotFound`."""
        own = {given: given.lower() for given in task_ids if is_id(given.lower())}
        rows = await self._database.read(standings_of(organization_id, set(own.values()))) if own else []
        known = {row["uid"] for row in rows}
        # Where both are equal, one of them is held: there may be a thousand, in each of many waits.
        uids = {given: given if given == uid else uid for given, uid in own.items() if uid in known}
        if others := [given for given in task_ids if given not in uids]:
            for row in await self._database.read(standings_by_provider_ids(organization_id, others)):
                uids.setdefault(row["provider_task_id"], row["uid"])
        if unknown := [given for given in task_ids if given not in uids]:
            named = ", ".join(repr(given[:80]) for given in unknown[:_MOST_NAMED])
            more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
            what = "task does" if len(unknown) == 1 else "tasks do"
            message = f"{len(unknown)} {what} not exist: {named}{more}"
            raise NotFound(message, code="task_not_found", param="task_ids")
        return [uids[given] for given in task_ids]


def _ended(rows: Mapping[str, TaskStanding]) -> list[str]:
    return [uid for uid, row in rows.items() if row["status"] in TERMINAL]


def _those_in(rows: Mapping[str, TaskStanding], uids: list[str]) -> list[str]:
    """Return these ids without those that are not in `rows`: as the same list where all are."""
    found = [uid for uid in uids if uid in rows]
    return found if len(found) < len(uids) else uids
