"""The group-commit writer: all writes of a process go through it, and all writes that wait share one commit.

Why: a commit that survives a power cut waits for the disk (fsync), and that wait, not the statements, limits how many
transactions a second a database can commit. So writes do not get a transaction each. A write joins a queue; the writer
takes all that wait as one batch, runs their statements in one transaction, commits once, and only then returns to the
callers. While the disk is busy with one batch the next one collects, so that batches grow with the load: the disk is
waited for once, for 1 write or for 500, and under load the wait per write shrinks instead of the queue growing.

This is why the statements in `receiver.storage.transaction` take lists: the writer groups a batch by handler, and each
handler writes all of its items with one statement (or a few), however many they are.

Six rules follow for handlers and callers:

- A caller may rely on its write as soon as `write` returns: it is on disk. If `write` raises an error, nothing of it
  is, with one exception: `OutcomeUnknown`, when the answer to the commit is missing. Until the outcome is known,
  nothing that depends on the write is done: neither by the caller (`OutcomeUnknown.later`) nor by
  `Transaction.after_commit`. A caller that is cancelled cannot know either: a write that was taken is not taken back.
- Items of different callers share a transaction, so an item that fails must not make the others fail. A handler
  returns an error for an item that it refuses; if something raises, the batch is split (`Writer._commit_halves`).
- An item that waits for a lock of another session is set apart (`receiver.storage.set_apart`): writes of one process
  are not always stored in the order in which they arrived.
- Heavy writes (`receiver.storage.write_queue`) may have a writer of their own, whose connection writes at the same
  time, so that light ones do not wait for them. Their order with others is that of another process's writes.
- Where writes are tried without locks (`receiver.storage.optimistic`), a batch is divided: a handler that stands alone
  has a commit of its own, and so have, as the last ones, those that need locks.
- A handler may be called several times for the same item, each time in a new transaction (`Writer._commit_batch`);
  the first time perhaps in one that takes no locks and fails if something has changed (`receiver.storage.optimistic`).
  So its only effects are statements in that transaction and calls left in `Transaction.after_commit`
  and `bookkeeping`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any, Protocol, cast

from msgspec import Struct

from receiver.clock import monotonic, utc_now
from receiver.errors import OutcomeUnknown, StorageUnavailable, Unavailable, WriterFull
from receiver.storage.commit_delay import COMMIT_DELAY_SECONDS, CommitDelay
from receiver.storage.loop_turns import leave_turns
from receiver.storage.optimistic import (
    CONFLICT,
    RESTING,
    STORED,
    Doubt,
    NotOptimistic,
    is_alone,
    is_last,
    is_optimistic,
)
from receiver.storage.queued_write import FEW, Item, QueuedWrite, Result, WriteHandler, Written, call_all, fail
from receiver.storage.set_apart import SetApart
from receiver.storage.transaction import Transaction
from receiver.storage.write_queue import HEAVY, WriteQueue, weight_of
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import (
    commit_seconds,
    counted,
    exceptions,
    optimistic_batches,
    writer_batch,
    writer_waiting,
    writes_not_stored,
    writes_set_apart,
)

MOST_AT_ONCE = 500
"""The largest weight of a batch of several writes: it bounds how long a transaction holds its locks."""
DEFER_SECONDS = 0.02
"""How long a deferrable write waits for `FEW` others to share their commit, before it gets one of its own."""
_MOST_DEFERRED = 100
"""With this many deferrable writes none of them waits any longer."""
_BEGIN_SECONDS = 0.002
"""How long the bookkeeping of a batch waits while no other write does: a delivery is begun in less time."""
_CONFLICT_TRIES = 4
"""How often a batch is tried in all while it conflicts with the writes of another process."""

log = get_logger("storage.writer")


class WriteConnection(Protocol):
    """The one connection on which a writer's transactions run, one at a time."""

    async def begin(self, *, is_brief: bool = False) -> Transaction:
        """Begin a transaction, which waits only briefly for a lock if `is_brief`. Raises `StorageUnavailable`."""
        ...

    async def commit(self) -> None:
        """Commit; return when the transaction is on disk.

        Raises `StorageUnavailable` if it is not, and `OutcomeUnknown` if that is not known; then its `later` returns or
        raises as this does, once it is known, and another transaction may be begun in the meantime.
        """
        ...

    async def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        ...

    def is_conflict(self, error: Exception) -> bool:
        """Return whether another process's write caused the error, so that the same batch may succeed now."""
        ...

    def is_locked(self, error: BaseException) -> bool:
        """Return whether a row or table that a statement needs was locked by another session for too long."""
        ...

    def unavailable(self, error: BaseException) -> Unavailable | None:
        """Return the error for the client if the database is at fault; None if the statement or its values are."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


class Outage(Struct, frozen=True):
    """A time in which no write could be stored."""

    since: datetime
    until: datetime


class Writer:
    """Commits the writes that wait, one transaction at a time: of each organization in order, organizations in turn.

    `capacity` is how many items of bounded writes may wait. One beyond it is refused, one that is not `essential`
    also where the rest is kept for essential ones, and one of an organization where others need the rest. Refused too
    is one that is not essential while `is_scarce` returns True: the disk is full. `heavy` writes what is heavy.
    `begin_optimistic` begins a transaction without locks (`receiver.storage.optimistic`).
    `is_on_loop` says that statements run on the event loop's thread, which others need too (`loop_turns`).
    """

    def __init__(
        self,
        connection: WriteConnection,
        *,
        capacity: int = 4096,
        is_scarce: Callable[[], bool] = lambda: False,
        heavy: "Writer | None" = None,
        is_on_loop: bool = False,
        begin_optimistic: Callable[[], Awaitable[Transaction]] | None = None,
    ) -> None:
        self._begin_optimistic = begin_optimistic
        self._doubt = Doubt()
        self._is_on_loop = is_on_loop
        self._is_scarce = is_scarce
        self._heavy = heavy
        self._connection = connection
        self._waiting: WriteQueue[QueuedWrite] = WriteQueue(capacity)
        self._deferred: deque[QueuedWrite] = deque()
        self._deferred_timer: asyncio.TimerHandle | None = None
        self._apart: SetApart[QueuedWrite] = SetApart()
        self._commit_delay = CommitDelay()
        self._put_off: list[QueuedWrite] = []
        """The rest of a batch, a part of which was not stored, or not known to be: it is the next batch."""
        self._bookkeeping: list[Callable[[], None]] = []
        """What is left to do of the batches that were committed."""
        self._wake = asyncio.Event()
        self.batches = 0
        self.batch_seconds = 0.0
        """How many batches were committed, and how long they took in all."""
        self._committing = 0.0
        """What this thread computed during the commits of a batch: for others, while a slow disk writes."""
        self._outage_began: datetime | None = None
        self._outage: Outage | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to commit writes."""
        self._task = asyncio.create_task(self._run(), name="ringback-writer")
        if self._heavy is not None:
            self._heavy.start()

    async def write(
        self,
        handler: WriteHandler[Item, Result],
        item: Item,
        *,
        bounded: bool = True,
        deferrable: bool = False,
        until_known: bool = False,
        essential: bool = False,
        items: int = 1,
        size: int = 0,
        organization: int | None = None,
    ) -> Result:
        """Write `item` with `handler`; return the handler's result for it when it is on disk.

        `items` is how many this stands for, and `size` about how many bytes their documents have in all, if they may be
        large. `organization` is whose write it is, as far as that is known: one that waits has its turn among those of
        others. In a batch each handler runs once, with all of its items, in the order in which the first item of each
        arrived, but for those that come last, and where a batch is divided (`_parts`). `bounded=False` is for callers
        that are few by themselves and whose writes may not be refused, such as outcomes of calls already made.
        `essential` is for a bounded write that is stored even while the disk is so full that others are refused.
        `deferrable` is for a write that no client waits for: it shares the next commit of several writes, or one with
        other such writes after `DEFER_SECONDS`. `until_known` is for a write that is repeated until it is stored: if
        its commit is held, it waits for the outcome as long as that takes, for the repetition would wait for the locks
        of the held one, and all other writes with it.
        Raises `WriterFull` and `StorageUnavailable` (nothing was stored), `OutcomeUnknown` (whose `later` is the result
        that this would have returned, once the write is known to be on disk), or the error that the handler returned.
        """
        write = QueuedWrite(handler, item, items, weight_of(items, size), bounded, essential, organization)
        writer = self if self._heavy is None or write.weight < HEAVY else self._heavy
        return cast(Result, await writer._store(write, deferrable=deferrable, until_known=until_known))

    async def run(
        self,
        work: Callable[[Transaction], Awaitable[Result]],
        *,
        bounded: bool = True,
        essential: bool = False,
        items: int = 1,
        size: int = 0,
        organization: int | None = None,
    ) -> Result:
        """Run `work` as one write in the next transaction; return its result when that is on disk.

        An error that `work` returns is raised here. An error that it raises splits the batch: return refusals.
        """
        writing = self.write(
            _run_each, work, bounded=bounded, essential=essential, items=items, size=size, organization=organization
        )
        return cast(Result, await writing)

    def take_outage(self) -> Outage | None:
        """Return the time in which nothing could be stored, once after it is over; None if there was none."""
        taken, self._outage = self._outage, None
        return taken

    async def aclose(self) -> None:
        """Commit the writes that still wait, refuse new ones, then close the connection."""
        closing = [self._close()] if self._heavy is None else [self._close(), self._heavy.aclose()]
        await asyncio.gather(*closing)

    async def _store(self, write: QueuedWrite, *, deferrable: bool, until_known: bool) -> Any:
        if self._closing or (write.bounded and self._waiting.is_full_for(write)):
            counted(writes_not_stored, "queue full").inc()
            raise WriterFull("the queue of writes is full; nothing was stored, try again")
        if write.bounded and not write.essential and self._is_scarce():
            counted(writes_not_stored, "disk full").inc()
            raise StorageUnavailable("the disk is full; nothing was stored, try again when there is room")
        self._waiting.count(write, 1)
        if deferrable:
            self._defer(write)
        else:
            self._waiting.add(write)
            self._wake.set()
        writer_waiting.inc()
        try:
            return await write.future
        except OutcomeUnknown as unknown:
            if not until_known or unknown.later is None:
                raise
            return await asyncio.shield(unknown.later)
        finally:
            writer_waiting.dec()

    async def _close(self) -> None:
        self._closing = True
        self._apart.hurry(asyncio.get_running_loop().time())
        self._waiting.hurry()
        self._flush_deferred()
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._connection.aclose()

    async def _run(self) -> None:
        while self._waiting or self._put_off or self._apart or not self._closing:
            if self._apart:
                await self._try_apart()
                self._call_bookkeeping()
            self._waiting.wake(asyncio.get_running_loop().time())
            if not len(self._waiting) and not self._put_off:
                await self._wait_for_work()
                continue
            if not self._put_off:
                await self._wait_for_more()
            batch = self._next_batch()
            began, computed = asyncio.get_running_loop().time(), time.thread_time()
            self._committing = 0.0
            await self._process_apart(batch)
            if len(self._waiting):
                self._call_bookkeeping()
            ended = asyncio.get_running_loop().time()
            self.batches, self.batch_seconds = self.batches + 1, self.batch_seconds + ended - began
            self._waiting.rest(batch, ended - began, ended)
            took = time.thread_time() - computed - self._committing
            if self._bookkeeping:
                await self._let_begin()
                self._call_bookkeeping()
            if self._is_on_loop:
                await leave_turns(took, lambda: self._closing)

    async def _let_begin(self) -> None:
        """Let the deliveries begin that the last batch wrote, and its callers go on, until another write waits."""
        if len(self._waiting) or self._closing:
            return
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_BEGIN_SECONDS):
                await self._wake.wait()

    def _call_bookkeeping(self) -> None:
        calls, self._bookkeeping = self._bookkeeping, []
        call_all(calls)

    async def _wait_for_work(self) -> None:
        """Wait until a write is to be stored: a new one, one set apart, or one whose organization has rested."""
        self._wake.clear()
        if self._closing and not self._apart:
            return
        next_at = self._waiting.next_at()
        if self._apart:
            next_at = self._apart.next_at if next_at is None else min(next_at, self._apart.next_at)
        if next_at is None:
            await self._wake.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(next_at):
                await self._wake.wait()

    async def _try_apart(self) -> None:
        """Try one part of the writes that are set apart again, if its time has come."""
        now = asyncio.get_running_loop().time()
        over = list(self._apart.over(now))
        self._count(over, -1)
        _fail_locked(over)
        writes = list(self._apart.take(now))
        if writes:
            self._count(writes, -1)
            await self._process(writes)
            self._apart.tried()

    def _set_apart(self, batch: list[QueuedWrite]) -> None:
        over = self._apart.add(batch, asyncio.get_running_loop().time())
        self._count(batch, 1)
        self._count(over, -1)
        writes_set_apart.inc(len(batch))
        _fail_locked(list(over))

    def _count(self, writes: Sequence[QueuedWrite], times: int) -> None:
        for write in writes:
            self._waiting.count(write, times)

    async def _wait_for_more(self) -> None:
        """Wait `COMMIT_DELAY_SECONDS` for more writes where that pays; see `receiver.storage.commit_delay`."""
        before = len(self._waiting)
        if self._commit_delay.is_worthwhile(before) and not self._closing:
            await asyncio.sleep(COMMIT_DELAY_SECONDS)
            self._commit_delay.waited(len(self._waiting) - before)
        self._commit_delay.note_batch(len(self._waiting), asyncio.get_running_loop().time())

    def _defer(self, write: QueuedWrite) -> None:
        self._deferred.append(write)
        if len(self._deferred) >= _MOST_DEFERRED:
            self._flush_deferred()
        elif self._deferred_timer is None:
            self._deferred_timer = asyncio.get_running_loop().call_later(DEFER_SECONDS, self._flush_deferred)

    def _flush_deferred(self) -> None:
        """Move the deferred writes to the queue, which commits them next."""
        if self._deferred_timer is not None:
            self._deferred_timer.cancel()
            self._deferred_timer = None
        if self._deferred:
            for write in self._deferred:
                self._waiting.add(write)
            self._deferred.clear()
            self._wake.set()

    def _next_batch(self) -> list[QueuedWrite]:
        """Return the next batch, with the deferred writes unless few others wait: to one they add a third of its time.

        Where few writes come, the deferred ones share a commit by themselves, after `DEFER_SECONDS`.
        What was put off comes before all of these, by itself.
        """
        if self._put_off:
            batch, self._put_off = self._put_off, []
            self._count(batch, -1)
            return batch
        if len(self._waiting) >= FEW:
            self._flush_deferred()
        return self._waiting.take(MOST_AT_ONCE)

    async def _process_apart(self, batch: list[QueuedWrite]) -> None:
        """Process a batch; where some of it is tried without locks, in parts.

        If it is not known whether one of these is stored, the others wait for the next round: one fault is waited for
        once.
        """
        parts = [batch] if self._begin_optimistic is None or self._apart else _parts(batch)
        for number, part in enumerate(parts, 1):
            writer_batch.observe(len(part))
            if not await self._process(part):
                self._put_off = list(chain.from_iterable(parts[number:]))
                self._count(self._put_off, 1)
                return

    def _is_tried_without_locks(self, batch: list[QueuedWrite]) -> bool:
        return self._begin_optimistic is not None and not self._apart and _may_be_optimistic(batch)

    async def _process(self, batch: list[QueuedWrite]) -> bool:
        """Commit a batch, and report to each caller its result, or its error; return whether the database answered."""
        try:
            written = await self._commit_batch(batch)
        except Unavailable as error:
            counted(writes_not_stored, "database").inc(len(batch))
            log.warning("batch not stored", writes=len(batch), error_code=error.code, error=str(error))
            self._outage_began = self._outage_began or utc_now()
            fail(batch, error)
            return False
        except Exception as error:
            if not self._connection.is_locked(error):
                return await self._commit_halves(batch, error)
            self._set_apart(batch)
        else:
            if self._outage_began is not None and written.unknown is None:
                self._note_outage(Outage(self._outage_began, utc_now()))
            self._bookkeeping += written.report(batch)
            return written.unknown is None
        return True

    def _note_outage(self, ended: Outage) -> None:
        """Note that writes are stored again. One that was not taken yet is joined with the later one."""
        self._outage = ended if self._outage is None else Outage(self._outage.since, ended.until)
        self._outage_began = None

    async def _commit_batch(self, batch: list[QueuedWrite]) -> Written:
        """Commit a batch; try again if another process's writes conflict with it.

        Why: with several processes on one PostgreSQL, a row that a handler did not find may be inserted by another
        process before the handler inserts it (a unique violation), a row that it refers to may be purged (a foreign key
        violation), and two processes may wait for each other's locks (a deadlock). None of that is the item's fault.
        The transaction is rolled back and the whole batch runs again from the beginning: its handlers now read what the
        other process wrote, and decide on that. So a handler needs no code for such races; "read, then insert what is
        missing" is enough. A conflict that remains after `_CONFLICT_TRIES` is treated as an item's fault, which it may
        be after all: a unique violation between two items of one batch repeats, and splitting the batch resolves it.
        """
        if self._begin_optimistic is not None and self._is_tried_without_locks(batch):
            written = await self._commit_optimistic(batch, self._begin_optimistic)
            if written is not None:
                return written
        for _ in range(_CONFLICT_TRIES - 1):
            try:
                return await self._commit_once(batch)
            except Exception as error:
                if not self._connection.is_conflict(error):
                    raise
                log.debug("batch conflicted; trying again", writes=len(batch), error=type(error).__name__)
        return await self._commit_once(batch)

    async def _commit_optimistic(
        self, batch: list[QueuedWrite], begin: Callable[[], Awaitable[Transaction]]
    ) -> Written | None:
        """Commit a batch without locks; None if it has to be done with locks."""
        if is_alone(batch[0].handler):
            return await self._commit_alone(batch, begin)
        if self._doubt.is_resting():
            counted(optimistic_batches, RESTING).inc()
            return None
        try:
            written = await self._commit_once(batch, begin)
        except Exception as error:
            if not isinstance(error, NotOptimistic) and not self._connection.is_conflict(error):
                raise
            self._doubt.in_vain()
            counted(optimistic_batches, error.reason if isinstance(error, NotOptimistic) else CONFLICT).inc()
            return None
        self._doubt.stored()
        counted(optimistic_batches, STORED).inc()
        return written

    async def _commit_alone(
        self, batch: list[QueuedWrite], begin: Callable[[], Awaitable[Transaction]]
    ) -> Written | None:
        """Commit what stands alone, in which nothing is doubtful; None if it has to be done in a usual transaction."""
        try:
            return await self._commit_once(batch, begin)
        except Exception as error:
            if not isinstance(error, NotOptimistic) and not self._connection.is_conflict(error):
                raise
            return None

    async def _commit_once(
        self, batch: list[QueuedWrite], begin: Callable[[], Awaitable[Transaction]] | None = None
    ) -> Written:
        try:
            transaction = await (self._connection.begin(is_brief=bool(self._apart)) if begin is None else begin())
            results = await _handle(transaction, batch)
            # The loop's time may stand still within a turn, in which SQLite commits.
            began, computed = monotonic(), time.thread_time()
            unknown = await self._commit()
            commit_seconds.observe(monotonic() - began)
            self._committing += time.thread_time() - computed
            if unknown is not None:
                counted(writes_not_stored, "unknown").inc(len(batch))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            await self._connection.rollback()
            unavailable = self._connection.unavailable(error)
            if unavailable is not None:
                raise unavailable from error
            raise
        return Written(results, transaction.after_commit, transaction.bookkeeping, unknown)

    async def _commit(self) -> OutcomeUnknown | None:
        try:
            await self._connection.commit()
        except OutcomeUnknown as unknown:
            await self._connection.rollback()
            return unknown
        return None

    async def _commit_halves(self, batch: list[QueuedWrite], error: Exception) -> bool:
        """Commit the two halves of a batch that failed, each by itself; return whether the database answered.

        A failed statement does not tell which item it failed for. Halving finds the item with few more transactions
        (about twice the logarithm of the batch's size): it alone fails, and all others are stored, in their order. A
        batch that failed because the database is unavailable is not split: no half of it could be stored either.
        """
        if len(batch) == 1:
            counted(exceptions, "write").inc()
            log.error("write failed", item=type(batch[0].item).__name__, error=type(error).__name__, exc_info=error)
            fail(batch, error)
            return True
        middle = len(batch) // 2
        first = await self._process(batch[:middle])
        return await self._process(batch[middle:]) and first


def _parts(batch: list[QueuedWrite]) -> list[list[QueuedWrite]]:
    """Divide a batch: what may share a transaction without locks, each handler that stands alone, what needs locks.

    So writes of different handlers that are made at once may be stored in another order than that in which they came.
    """
    shared: list[QueuedWrite] = []
    alone: dict[Any, list[QueuedWrite]] = {}
    with_locks: list[QueuedWrite] = []
    for write in batch:
        if is_alone(write.handler):
            alone.setdefault(write.handler, []).append(write)
        elif is_optimistic(write.handler):
            shared.append(write)
        else:
            with_locks.append(write)
    return [part for part in (shared, *alone.values(), with_locks) if part]


def _may_be_optimistic(batch: list[QueuedWrite]) -> bool:
    return all(is_optimistic(write.handler) for write in batch)


async def _handle(transaction: Transaction, batch: list[QueuedWrite]) -> list[Any]:
    """Call each handler once with all of its items; return the results in the batch's order.

    Those that come last are called after the others.
    """
    positions: dict[Any, list[int]] = {}
    for position, write in enumerate(batch):
        positions.setdefault(write.handler, []).append(position)
    results: list[Any] = [None] * len(batch)
    for handler in sorted(positions, key=is_last):
        own = positions[handler]
        outcome = await handler(transaction, [batch[position].item for position in own])
        for position, result in zip(own, outcome, strict=True):
            results[position] = result
    return results


async def _run_each(
    transaction: Transaction, works: Sequence[Callable[[Transaction], Awaitable[Any]]]
) -> Sequence[Any | Exception]:
    return [await work(transaction) for work in works]


def _is_cancelled() -> bool:
    """Return whether this task is to end. A `CancelledError` may also come from the driver, for a broken call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _fail_locked(over: list[QueuedWrite]) -> None:
    if over:
        error = StorageUnavailable(
            "rows or tables are locked by another session of the database; nothing was stored, try again"
        )
        counted(writes_not_stored, "locked").inc(len(over))
        log.warning("writes not stored: locked", writes=len(over), error_code=error.code)
        fail(over, error)
