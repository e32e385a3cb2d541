"""Adopting: a task that was made elsewhere at the provider is tracked here from now on."""

import math
from collections.abc import Mapping
from typing import Any

from receiver.errors import NotFound, Unavailable
from receiver.providers import CallerKey, CallPurpose, Found, Missing, NoAnswer, Provider
from receiver.storage.database import Database
from receiver.storage.tasks import add_metadata, owner_of
from receiver.tracking.apply import Applier, Arrival


class Adopter:
    """Adopts tasks."""

    def __init__(self, database: Database, applier: Applier, providers: Mapping[str, Provider]) -> None:
        self._database = database
        self._applier = applier
        self._providers = providers

    async def adopt(
        self, organization_id: int, provider: str, provider_task_id: str, metadata: dict[str, Any] | None
    ) -> str:
        """Track a task of the provider's for this organization; return its outer id, the same however often.

        What the provider says of it goes through the one door. `metadata` become its metadata, if it has none yet.
        Raises `NotFound` for a task that the provider does not know, or that is another organization's, and
        `Unavailable` when the provider gives no answer.
        """
        uid = await self._known(organization_id, provider, provider_task_id)
        if uid is None:
            arrival = await self._ask(organization_id, provider, provider_task_id, metadata)
            uid = (await self._database.writer.write(self._applier.apply, arrival)).task_uid
        if metadata is not None:
            await self._database.writer.run(lambda tx: add_metadata(tx, organization_id, uid, metadata))
        return uid

    async def _known(self, organization_id: int, provider: str, provider_task_id: str) -> str | None:
        """Return the task that has this provider's task already. Raises `NotFound` if it is another's."""
        rows = await self._database.read(owner_of(provider, provider_task_id))
        if not rows:
            return None
        if rows[0]["organization_id"] != organization_id:
            raise _unknown(provider_task_id)
        return str(rows[0]["uid"])

    async def _ask(
        self, organization_id: int, provider: str, provider_task_id: str, metadata: dict[str, Any] | None
    ) -> Arrival:
        caller = CallerKey(organization_id, CallPurpose.CREATE)
        match await self._providers[provider].fetch(provider_task_id, attempt=None, caller=caller):
            case Found(update):
                return Arrival(provider=provider, update=update, organization_id=organization_id, metadata=metadata)
            case Missing():
                raise _unknown(provider_task_id)
            case NoAnswer(message, retry_after):
                wait = max(1, math.ceil(retry_after or 0))
                raise Unavailable(f"the provider gave no answer ({message}); try again", retry_after=wait)


def _unknown(provider_task_id: str) -> NotFound:
    # The same for both, or one organization could find out about another's tasks.
    message = f"the provider has no task {provider_task_id[:80]!r} that you could adopt"
    return NotFound(message, param="provider_task_id")
