"""Adopting: a task that was created directly at the provider is tracked here from now on.

Why adopting reads before it asks. A provider's task may have one row at most, and one owner. So the id is looked up
first: if the organization has the task already, nothing is asked of the provider, and the same call may be repeated
without harm; if another organization has it, the response is the same as for a task that does not exist. Only then
is the provider asked. What it returns goes the way of every update (`receiver.tracking.apply`), which creates the row.
Two calls at the same time, or a webhook of the task that arrives between them, thus end in one row: both updates name
the same provider's id, and whichever is applied second finds the row of the first.
"""

import math
from typing import Any

from receiver.domain.updates import ProviderUpdate
from receiver.errors import NotFound, Unavailable
from receiver.providers import CallerKey, CallPurpose, Found, Missing, NoAnswer, Providers, ProviderTask
from receiver.storage.database import Database
from receiver.storage.tasks import add_metadata, owner_of
from receiver.tracking.apply import Applier
from receiver.tracking.update_batch import Arrival

AdoptedFrom = tuple[str, int | None]
"""The name of a provider, and the row key of an account there; None for that of the environment."""


class Adopter:
    """Adopts tasks that were created elsewhere."""

    def __init__(self, database: Database, applier: Applier, providers: Providers) -> None:
        self._database = database
        self._applier = applier
        self._providers = providers

    async def adopt(
        self, organization_id: int, account: AdoptedFrom, provider_task_id: str, metadata: dict[str, Any] | None
    ) -> str:
        """Track a provider's task for this organization; return its outer id, which is the same for every call.

        `account` is where the provider has it. `metadata` become the task's metadata if it has none yet. Raises
        `NotFound` for a task that the provider does not know or that belongs to another organization, and `Unavailable`
        if the provider does not answer.
        """
        uid = await self._known(organization_id, account[0], provider_task_id)
        if uid is None:
            arrival = await self._ask(organization_id, account, provider_task_id, metadata)
            uid = (await self._database.writer.write(self._applier.apply, arrival)).task_uid
        if metadata is not None:
            await self._database.writer.run(lambda tx: add_metadata(tx, organization_id, uid, metadata))
        return uid

    async def adopt_update(self, organization_id: int, provider: str, update: ProviderUpdate) -> str:
        """Track a provider's task that is known from an answer of the provider's; return its outer id.

        The provider is not asked. Raises `NotFound` for a task that belongs to another organization.
        """
        uid = await self._known(organization_id, provider, str(update.provider_task_id))
        if uid is None:
            arrival = Arrival(provider=provider, update=update, organization_id=organization_id)
            uid = (await self._database.writer.write(self._applier.apply, arrival)).task_uid
        return uid

    async def _known(self, organization_id: int, provider: str, provider_task_id: str) -> str | None:
        """Return the id of the task with this provider's id, or None.

        Raises `NotFound` if the task belongs to another organization.
        """
        rows = await self._database.read(owner_of(provider, provider_task_id))
        if not rows:
            return None
        if rows[0]["organization_id"] != organization_id:
            raise _unknown(provider_task_id)
        return str(rows[0]["uid"])

    async def _ask(
        self, organization_id: int, account: AdoptedFrom, provider_task_id: str, metadata: dict[str, Any] | None
    ) -> Arrival:
        caller = CallerKey(organization_id, CallPurpose.CREATE)
        provider = await self._providers.of(*account)
        match await provider.fetch(ProviderTask(provider_task_id), attempt=None, caller=caller):
            case Found(update):
                return Arrival(
                    provider=provider.name,
                    account_id=account[1],
                    update=update,
                    organization_id=organization_id,
                    metadata=metadata,
                )
            case Missing():
                raise _unknown(provider_task_id)
            case NoAnswer(message, retry_after):
                wait = max(1, math.ceil(retry_after or 0))
                raise Unavailable(f"the provider did not answer ({message}); try again", retry_after=wait)


def _unknown(provider_task_id: str) -> NotFound:
    # The same message for both cases: otherwise one organization could learn of the tasks of another.
    message = f"the provider has no task {provider_task_id[:80]!r} that you can adopt; check the id and the provider"
    return NotFound(message, code="task_not_found", param="provider_task_id")
