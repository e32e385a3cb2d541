"""What follows from a webhook that only says that there is news of a task: the task is asked for.

Such a webhook may come before the create call is answered: then no task has the id that it names. It is answered with
a 200 only when what it told is on disk, or when it is about no task of ours.
"""

from msgspec.structs import replace

from receiver.clock import utc_now
from receiver.domain.updates import ProviderUpdate, Source
from receiver.errors import Unavailable
from receiver.inbound.senders import InboundSender
from receiver.providers import Found, LookNow, NoAnswer, ProviderTask
from receiver.storage.database import Database
from receiver.storage.leases import poll_now
from receiver.storage.lost_creates import is_ended, lost_creates, open_create
from receiver.storage.tasks import owner_of
from receiver.telemetry.log import get_logger
from receiver.tracking.apply import Applied, Applier
from receiver.tracking.submit import task_of_reference
from receiver.tracking.update_batch import Arrival

log = get_logger("inbound.looks")

_AGAIN_SECONDS = 10
Looked = tuple[str, str | None]
"""What became of a webhook, and the trace of its task."""


class Looks:
    """Lets tasks be asked for because of a webhook."""

    def __init__(self, database: Database, applier: Applier) -> None:
        self._database = database
        self._applier = applier

    async def look(self, sender: InboundSender, task_uid: str | None, look: LookNow, attempt: int | None) -> Looked:
        """Write that a task is to be asked for now. Raises `Unavailable`, so that the webhook is sent again."""
        name = look.provider_task_id
        if task_uid is None:
            if name is None:
                raise Unavailable(
                    "the provider's signature cannot be checked now; send it again", retry_after=_AGAIN_SECONDS
                )
            return await self._look_by_name(sender, name)
        if name is not None:  # which the answer to the create call may not have told
            update = ProviderUpdate(source=Source.WEBHOOK, status=None, provider_task_id=name, attempt=attempt)
            await self._apply(Arrival(provider=sender.name, task_uid=task_uid, update=update))
        elif any(not is_ended(row) for row in await self._database.read(lost_creates([task_uid]))):
            raise Unavailable(
                "the create call of the task is not answered yet; send it again", retry_after=_AGAIN_SECONDS
            )
        await self.poll_now(task_uid)
        return "thin", None

    async def poll_now(self, task_uid: str) -> None:
        """Make a task due for a poll now, unless it has ended."""
        now = utc_now()
        await self._database.writer.run(lambda tx: poll_now(tx, [task_uid], now))
        self._applier.after_commit.due.set(now)

    async def _look_by_name(self, sender: InboundSender, name: str) -> Looked:
        """Look at the task with this id at the provider; if none has it, at one whose create call is not answered."""
        if await self._poll_owner(sender, name):
            return "thin", None
        is_open = await self._database.read(open_create(sender.name, sender.account_id))
        # Only now: a call that is not open any more has been answered, and its task has the id.
        if await self._poll_owner(sender, name):
            return "thin", None
        return await self._ask_whose(sender, name) if is_open else ("unknown task", None)

    async def _poll_owner(self, sender: InboundSender, name: str) -> bool:
        rows = await self._database.read(owner_of(sender.name, name))
        is_its = bool(rows) and rows[0]["account_id"] == sender.account_id
        if is_its:
            await self.poll_now(rows[0]["uid"])
        return is_its

    async def _ask_whose(self, sender: InboundSender, name: str) -> Looked:
        """Ask for a task of the provider's: our reference in it says whose it is, be its create call lost or not."""
        outcome = await sender.adapter.fetch(ProviderTask(name), attempt=None)
        if isinstance(outcome, NoAnswer):
            raise Unavailable("the provider does not say whose task it is; send it again", retry_after=_AGAIN_SECONDS)
        named = task_of_reference(outcome.update.reference) if isinstance(outcome, Found) else None
        if named is None or not isinstance(outcome, Found):
            return "unknown task", None
        uid, attempt = named
        rows = await self._database.read(lost_creates([uid]))
        if not any((row["provider"], row["account_id"]) == (sender.name, sender.account_id) for row in rows):
            return ("thin" if await self._poll_owner(sender, name) else "unknown task"), None
        update = replace(outcome.update, attempt=attempt)
        applied = await self._apply(Arrival(provider=sender.name, task_uid=uid, update=update))
        ids = {"task_id": uid, "provider": sender.name, "provider_task_id": name}
        log.info("lost create found", **ids, status=applied.status)
        return "thin", applied.trace_context

    async def _apply(self, arrival: Arrival) -> Applied:
        return await self._database.writer.write(self._applier.apply, arrival, essential=True)
