"""What the API asks of tracking: create, wait, refresh, cancel, retry, adopt."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from models import TERMINAL, Submission
from receiver.domain.updates import ProviderUpdate
from receiver.errors import Conflict, NotFound, OutcomeUnknown, Unavailable
from receiver.events.after_commit import Waiting
from receiver.providers import SubmitOutcome
from receiver.storage.attempts import attempts_of
from receiver.storage.database import Database
from receiver.storage.large_rows import SMALL_BYTES, Hold, PageRoom, without_room
from receiver.storage.task_rows import TaskRows
from receiver.storage.tasks import task_by_id, task_if_small, task_without_input
from receiver.telemetry.log import get_logger
from receiver.tracking.adopt import Adopter
from receiver.tracking.cancel import Canceller
from receiver.tracking.create import Creator, TaskRequest
from receiver.tracking.poll import Poller
from receiver.tracking.retry import Retrier, RetryRequest
from receiver.tracking.submit import Outgoing, Submitter

Fields = Mapping[str, Any]

log = get_logger("tracking.tracker")


class Tracker:
    """Tasks, as the API uses them."""

    def __init__(
        self,
        database: Database,
        creator: Creator,
        submitter: Submitter,
        poller: Poller,
        canceller: Canceller,
        retrier: Retrier,
        adopter: Adopter,
        waiting: Waiting,
    ) -> None:
        self._database = database
        self._rows = TaskRows(database)
        self._creator = creator
        self._submitter = submitter
        self._poller = poller
        self._canceller = canceller
        self._retrier = retrier
        self._adopter = adopter
        self._waiting = waiting
        self._sending: set[asyncio.Task[SubmitOutcome]] = set()
        self._unknown: set[asyncio.Future[Any]] = set()
        """The creates of which it is not known yet whether they are on disk."""

    async def create(
        self, request: TaskRequest, *, wait: float, size: int = 0, stored: Callable[[], None] = lambda: None
    ) -> tuple[int, SubmitOutcome | None]:
        """Create a task and send it; return its row key, and the outcome: None if it is not known in `wait` seconds.

        `size` is about how many bytes the request has. `stored` is called as soon as it is on disk. Raises `WriterFull`
        and `StorageUnavailable`: then nothing was stored and nothing was sent. Raises `OutcomeUnknown`: then nothing
        was sent, and the task is sent as soon as it is known to be on disk.
        """
        outgoing = Outgoing(
            uid=request.uid,
            organization_id=request.organization_id,
            account_id=request.account_id,
            attempt=1,
            model=request.model,
            task_type=request.task_type,
            input=request.input,
            config=request.config,
            submission=Submission.SENDING,
            trace_context=request.trace_context,
        )
        try:
            created = await self._database.writer.write(
                self._creator.create, request, size=size, organization=request.organization_id
            )
        except OutcomeUnknown as unknown:
            unknown.when_stored(lambda _: self._submitter.not_sent(outgoing))
            if unknown.later is not None:
                self._unknown.add(unknown.later)
                unknown.later.add_done_callback(self._unknown.discard)
            raise
        stored()
        outgoing = replace(outgoing, lease_until=created.lease_until)
        sending = asyncio.create_task(self._submitter.send(request.provider, outgoing), name=request.uid)
        self._sending.add(sending)
        sending.add_done_callback(self._sent)
        done, _ = await asyncio.wait({sending}, timeout=wait)
        if not done or sending.exception() is not None:
            return created.id, None  # it is on disk: when its lease runs out, a worker claims it
        return created.id, sending.result()

    def _sent(self, sending: asyncio.Task[SubmitOutcome]) -> None:
        self._sending.discard(sending)
        error = None if sending.cancelled() else sending.exception()
        if isinstance(error, Unavailable):
            log.warning("submitting failed", task_id=sending.get_name(), error_code=error.code, error=str(error))
        elif error is not None:
            log.error("submitting failed", task_id=sending.get_name(), exc_info=error)

    async def create_bulk(self, requests: Sequence[TaskRequest], *, size: int = 0) -> None:
        """Create tasks in one transaction; they are sent in the background, in turn with other tasks.

        `size` is about how many bytes the requests have in all. Raises `WriterFull` and `StorageUnavailable`: then
        nothing was stored. Raises `OutcomeUnknown`.
        """
        organization_id = requests[0].organization_id if requests else None
        await self._database.writer.write(
            self._creator.create_bulk,
            requests,
            items=len(requests),
            size=size,
            organization=organization_id,
        )

    async def task(self, organization_id: int, task_id: str, hold: Hold = without_room) -> Fields:
        """Return a task's row, by Ringback's id or the provider's; `hold` takes the room for a large one.

        Raises `NotFound`, and `Unavailable` if there is no room.
        """
        return await self._whole(organization_id, await self._if_small(organization_id, task_id), hold)

    async def created(self, request: TaskRequest, key: int) -> Fields:
        """Return the row of a task that was just created with this key; the input of a large one is not read again.

        Raises `NotFound`, `Unavailable`.
        """
        task = await self._rows.read(key)
        if task is None:
            raise _not_found(request.uid)
        if task["stored_bytes"] <= SMALL_BYTES:
            return task
        query = task_without_input(request.organization_id, request.uid)
        return {**_found(await self._database.read(*query), request.uid), "input": request.input}

    async def wait(self, organization_id: int, task_id: str, seconds: float, hold: Hold = without_room) -> Fields:
        """Return a task's row when it has ended, or as it is after `seconds` or when the service stops.

        Raises `NotFound`, and `Unavailable` if there is no room for a large one then.
        """
        uid = (await self._if_small(organization_id, task_id))["uid"]
        read = partial(self._if_small, organization_id, uid)
        task = await self._waiting.read_until(uid, seconds, read, _has_ended)
        return await self._whole(organization_id, task, hold)

    async def _if_small(self, organization_id: int, task_id: str) -> Fields:
        """Return a task's row, that of a large one without its documents. Raises `NotFound`."""
        return _found(await self._database.read(*task_if_small(organization_id, task_id)), task_id)

    async def _whole(self, organization_id: int, task: Fields, hold: Hold) -> Fields:
        if task["stored_bytes"] <= SMALL_BYTES:
            return task
        await PageRoom(hold).grow(task["stored_bytes"])
        return _found(await self._database.read(task_by_id(organization_id, task["uid"])), task["uid"])

    async def refresh(self, organization_id: int, task_id: str) -> Fields:
        """Poll a task now; return its row afterwards. Raises `NotFound`."""
        task = await self.task(organization_id, task_id)
        await self._poller.poll_now(task["uid"])
        return await self.task(organization_id, task["uid"])

    async def refresh_soon(self, uids: Collection[str]) -> None:
        """Have these tasks polled as soon as the provider's limit allows, those that have not ended.

        Raises `Unavailable`.
        """
        await self._poller.poll_soon(uids)

    async def cancel(self, task: Fields) -> str:
        """Cancel a task; return the message for the client. Raises as `Canceller.cancel` does."""
        return await self._canceller.cancel(task)

    async def retry(self, task: Fields, *, past_attempt: int | None = None) -> None:
        """Start another attempt of a task that failed or was cancelled. Raises `Conflict`.

        It is looked for first (`look_first`). Does nothing for a task that is past the attempt `past_attempt` already.
        """
        await self.look_first([task])
        await self._database.writer.write(
            self._retrier.retry, RetryRequest(task["uid"], past_attempt), organization=task["organization_id"]
        )

    async def look_first(self, tasks: Sequence[Fields]) -> None:
        """Look once more for those of these failed tasks that the provider may have, before they are done again.

        Raises `Conflict` if it has one: another attempt would be paid for besides it. Repeated, it is not looked for.
        """
        if any(await asyncio.gather(*map(self._poller.finds_lost_create, tasks))):
            raise Conflict(
                "the provider has made the task all the same: wait for its end there; or send this request again, with "
                "a new Idempotency-Key if it has one, to begin another attempt, which is paid for besides"
            )

    async def adopt(
        self,
        organization_id: int,
        provider: str,
        provider_task_id: str,
        metadata: dict[str, Any] | None,
        *,
        account_id: int | None = None,
    ) -> Fields:
        """Track a task that was created elsewhere; return its row. Raises as `Adopter.adopt` does."""
        of_account = (provider, account_id)
        uid = await self._adopter.adopt(organization_id, of_account, provider_task_id, metadata)
        return await self.task(organization_id, uid)

    async def adopt_update(self, organization_id: int, provider: str, update: ProviderUpdate) -> str:
        """Track a task that an answer of the provider's shows; return its id. Raises as `Adopter.adopt_update` does."""
        return await self._adopter.adopt_update(organization_id, provider, update)

    async def attempts(self, task: Fields) -> list[Fields]:
        """Return a task's earlier attempts, oldest first: none for most tasks."""
        return list(await self._database.read(attempts_of(task["id"]))) if task["attempt"] > 1 else []

    async def drain(self, seconds: float) -> None:
        """Wait for the create calls under way, and for creates whose commit is not confirmed, `seconds` at most."""
        loop = asyncio.get_running_loop()
        over_at = loop.time() + seconds
        if waits := self._sending | self._unknown:
            await asyncio.wait(waits, timeout=seconds)
        await self._submitter.drain(max(0.0, over_at - loop.time()))


def _has_ended(task: Fields) -> bool:
    return task["status"] in TERMINAL


def _found(rows: list[dict[str, Any]], task_id: str) -> Fields:
    if not rows:
        raise _not_found(task_id)
    return rows[0]


def _not_found(task_id: str) -> NotFound:
    return NotFound(f"task {task_id[:80]!r} does not exist", code="task_not_found", param="task_id")
