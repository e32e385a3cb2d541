"""Task references: where an input names a task by Ringback's id, the provider gets its own id of that task."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from models import TERMINAL
from receiver.domain.task_references import ids_in, with_ids
from receiver.storage.database import Database
from receiver.storage.tasks import referenced_tasks, tasks_of_others

_MOST_AT_ONCE = 1000
"""Ids in one query."""


class Ready(Struct, frozen=True):
    """The input can be sent: it has the provider's ids."""

    input: Any


class Waits(Struct, frozen=True):
    """The input references a task that the provider does not know yet."""

    uid: str


class Unresolvable(Struct, frozen=True):
    """The input references a task that ended without ever reaching the provider."""

    uid: str
    status: str


class OfAnother(Struct, frozen=True):
    """The input names the provider's id of a task that belongs to another organization."""

    provider_task_id: str


Resolved = Ready | Waits | Unresolvable | OfAnother


class TaskReferences:
    """Resolves task references. Ids that are no tasks' of this provider stay unchanged.

    The provider has one account for all organizations, and would let one work with the task of another.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def resolve(self, organization_id: int, provider: str, given: Any) -> Resolved:
        """Return `given` with the provider's ids, or the first task that prevents that. Raises `StorageUnavailable`."""
        uids = sorted(ids_in(given))
        known: dict[str, str] = {}
        for start in range(0, len(uids), _MOST_AT_ONCE):
            some = uids[start : start + _MOST_AT_ONCE]
            for row in await self._database.read(referenced_tasks(organization_id, provider, some)):
                if row["provider_task_id"] is None:
                    return _without_id(row)
                known[row["uid"]] = row["provider_task_id"]
            for row in await self._database.read(tasks_of_others(organization_id, provider, some)):
                return OfAnother(row["provider_task_id"])
        return Ready(with_ids(given, known) if known else given)

    async def as_sent(self, task: Mapping[str, Any]) -> Any:
        """Return the input of a task's row as it was sent to the provider, as far as that can be resolved now."""
        resolved = await self.resolve(task["organization_id"], task["provider"], task["input"])
        return resolved.input if isinstance(resolved, Ready) else task["input"]


def _without_id(row: Mapping[str, Any]) -> Waits | Unresolvable:
    return Unresolvable(row["uid"], row["status"]) if row["status"] in TERMINAL else Waits(row["uid"])
