"""The group-commit writer: all writes of a process go through it, and as many as wait share one commit.

While one batch is on its way to the disk the next one collects, so the busier it is, the more writes share a
commit: one fsync for 1 or for 500. A write's caller is told only when it is on disk. If a batch fails it is tried
in halves, so that a poisonous item takes nobody down but itself.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from receiver.errors import StorageUnavailable, WriterFull
from receiver.storage.commit_delay import COMMIT_DELAY_SECONDS, CommitDelay
from receiver.storage.transaction import Transaction
from receiver.telemetry import get_logger, writer_batch, writer_waiting

Item = TypeVar("Item")
Result = TypeVar("Result")

WriteHandler = Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
"""Does one kind of write for all of its items that wait; returns a result, or an error, for each."""

MOST_AT_ONCE = 500
DEFER_SECONDS = 0.02
"""How long a write waits for a commit that others need, if nobody waits for it."""
_MOST_DEFERRED = 100
_TRIES = 4
"""How often a batch is tried that another process's writes were in the way of."""

log = get_logger("storage.writer")


class WriteConnection(Protocol):
    """A database's connection that writes."""

    async def begin(self) -> Transaction:
        """Begin a transaction. Raises `StorageUnavailable`."""
        ...

    async def commit(self) -> None:
        """Return when it is on disk. Raises `StorageUnavailable`."""
        ...

    async def rollback(self) -> None:
        """Undo it."""
        ...

    def is_conflict(self, error: Exception) -> bool:
        """Say whether another process's write was first, so that the same batch may well succeed now."""
        ...

    def unavailable(self, error: Exception) -> StorageUnavailable | None:
        """Tell the database's faults from an item's: return the error for the client, or None."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


class _Write:
    __slots__ = ("future", "handler", "item", "weight")

    def __init__(self, handler: WriteHandler[Any, Any], item: Any, weight: int) -> None:
        self.handler = handler
        self.item = item
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.weight = weight


class Writer:
    """Commits what waits, in order, as one transaction at a time. `capacity` bounds what may wait."""

    def __init__(self, connection: WriteConnection, *, capacity: int = 4096) -> None:
        self._connection = connection
        self._capacity = capacity
        self._waiting: deque[_Write] = deque()
        self._deferred: deque[_Write] = deque()
        self._deferred_timer: asyncio.TimerHandle | None = None
        self._weight = 0
        self._commit_delay = CommitDelay()
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to commit."""
        self._task = asyncio.create_task(self._run(), name="ringback-writer")

    async def write(
        self,
        handler: WriteHandler[Item, Result],
        item: Item,
        *,
        bounded: bool = True,
        deferrable: bool = False,
        weight: int = 1,
    ) -> Result:
        """Have `handler` write `item`, which stands for `weight` rows; return its result when that is on disk.

        Handlers run in the order in which their first items came, each once a batch with all of its items.
        `bounded=False` is for those whose own number is bounded and whose writes must not be turned away; and
        `deferrable` for those for whose write nobody waits: it shares the next commit, or has its own in 20 ms.
        Raises `WriterFull`, `StorageUnavailable` (nothing was stored), or what the handler returned for the item.
        """
        is_full = self._weight > 0 and self._weight + weight > self._capacity
        if self._closing or (bounded and is_full):
            raise WriterFull("more writes wait than the queue may hold; nothing was stored, try again")
        write = _Write(handler, item, weight)
        self._weight += weight
        if deferrable:
            self._defer(write)
        else:
            self._waiting.append(write)
            self._wake.set()
        return cast(Result, await write.future)

    async def run(self, work: Callable[[Transaction], Awaitable[Result]], *, bounded: bool = True) -> Result:
        """Run `work`, a write of its own kind, in the next transaction; return its result when that is on disk."""
        return cast(Result, await self.write(_each, work, bounded=bounded))

    async def aclose(self) -> None:
        """Commit what still waits, then close the connection."""
        self._closing = True
        self._flush_deferred()
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._connection.aclose()

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._wait_for_more()
            batch = self._next_batch()
            writer_waiting.set(len(self._waiting))
            writer_batch.observe(len(batch))
            await self._commit(batch)

    async def _wait_for_more(self) -> None:
        """Wait a little for more writes where that pays."""
        before = len(self._waiting)
        if self._commit_delay.is_worthwhile(before) and not self._closing:
            await asyncio.sleep(COMMIT_DELAY_SECONDS)
            self._commit_delay.waited(len(self._waiting) - before)
        self._commit_delay.note_batch(len(self._waiting), asyncio.get_running_loop().time())

    def _defer(self, write: _Write) -> None:
        self._deferred.append(write)
        if len(self._deferred) >= _MOST_DEFERRED:
            self._flush_deferred()
        elif self._deferred_timer is None:
            self._deferred_timer = asyncio.get_running_loop().call_later(DEFER_SECONDS, self._flush_deferred)

    def _flush_deferred(self) -> None:
        """Let those that were patient wait as the others do."""
        if self._deferred_timer is not None:
            self._deferred_timer.cancel()
            self._deferred_timer = None
        if self._deferred:
            self._waiting.extend(self._deferred)
            self._deferred.clear()
            self._wake.set()

    def _next_batch(self) -> list[_Write]:
        self._flush_deferred()
        batch = [self._waiting.popleft()]
        weight = batch[0].weight
        while self._waiting and weight + self._waiting[0].weight <= MOST_AT_ONCE:
            batch.append(self._waiting.popleft())
            weight += batch[-1].weight
        self._weight -= weight
        return batch

    async def _commit(self, batch: list[_Write]) -> None:
        try:
            results, after = await self._attempt(batch)
        except StorageUnavailable as error:
            log.warning("not stored", writes=len(batch), error=error.message)
            _fail(batch, error)
        except Exception as error:
            await self._commit_apart(batch, error)
        else:
            for write, result in zip(batch, results, strict=True):
                _answer(write, result)
            for call in after:
                call()

    async def _attempt(self, batch: list[_Write]) -> tuple[list[Any], list[Callable[[], None]]]:
        """Store a batch, again if another process was in the way: handlers see what it wrote, and decide anew."""
        for _ in range(_TRIES - 1):
            try:
                return await self._try(batch)
            except Exception as error:
                if not self._connection.is_conflict(error):
                    raise
                log.info("a batch is tried again", writes=len(batch), error=type(error).__name__)
        return await self._try(batch)

    async def _try(self, batch: list[_Write]) -> tuple[list[Any], list[Callable[[], None]]]:
        try:
            transaction = await self._connection.begin()
            results = await _handle(transaction, batch)
            await self._connection.commit()
        except Exception as error:
            await self._connection.rollback()
            unavailable = self._connection.unavailable(error)
            if unavailable is not None:
                raise unavailable from error
            raise
        return results, transaction.after_commit

    async def _commit_apart(self, batch: list[_Write], error: Exception) -> None:
        """Find the poisonous item by halves; the others are stored."""
        if len(batch) == 1:
            log.error("a write failed", item=type(batch[0].item).__name__, error=type(error).__name__, exc_info=error)
            _fail(batch, error)
            return
        middle = len(batch) // 2
        await self._commit(batch[:middle])
        await self._commit(batch[middle:])


async def _handle(transaction: Transaction, batch: list[_Write]) -> list[Any]:
    """Give each handler all of its items; return the results in the batch's order."""
    places: dict[Any, list[int]] = {}
    for place, write in enumerate(batch):
        places.setdefault(write.handler, []).append(place)
    results: list[Any] = [None] * len(batch)
    for handler, mine in places.items():
        outcome = await handler(transaction, [batch[place].item for place in mine])
        for place, result in zip(mine, outcome, strict=True):
            results[place] = result
    return results


async def _each(
    transaction: Transaction, works: Sequence[Callable[[Transaction], Awaitable[Any]]]
) -> Sequence[Any | Exception]:
    return [await work(transaction) for work in works]


def _answer(write: _Write, result: Any) -> None:
    if write.future.done():  # its caller went away; it is stored all the same
        return
    if isinstance(result, Exception):
        write.future.set_exception(result)
    else:
        write.future.set_result(result)


def _fail(batch: list[_Write], error: Exception) -> None:
    for write in batch:
        _answer(write, error)
