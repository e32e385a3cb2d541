"""Waits for several tasks together: one wait, however many they are."""

import asyncio
from collections.abc import Mapping, Sequence
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
        found: dict[str, TaskStanding] = {}
        enough = all if for_all else any
        with self._waiting.watch_several(set(uids)) as watch:
            changed = watch.uids
            while True:
                # Only what has changed is read: of a thousand tasks, each that ends wakes this wait.
                for row in await self._database.read(standings_of(organization_id, changed)):
                    found[row["uid"]] = row
                is_over = enough(found[uid]["status"] in TERMINAL for uid in uids if uid in found)
                left = end - loop.time()
                if is_over or left < STEP_SECONDS or self._waiting.closed:
                    return [found[uid] for uid in uids if uid in found], is_over
                changed = await watch.changed(left)

    async def _find(self, organization_id: int, task_ids: Sequence[str]) -> list[str]:
        """Return Ringback's ids of these tasks. Raises `NotFound`."""
        own = {given: given.lower() for given in task_ids if is_id(given.lower())}
        rows = await self._database.read(standings_of(organization_id, set(own.values()))) if own else []
        known = {row["uid"] for row in rows}
        uids = {given: uid for given, uid in own.items() if uid in known}
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
