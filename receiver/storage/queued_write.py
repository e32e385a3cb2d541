"""A write that waits for its commit, and what its caller is told: a result, an error, or that nothing is known yet."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from receiver.errors import OutcomeUnknown
from receiver.storage.transaction import Transaction
from receiver.telemetry.log import get_logger

Item = TypeVar("Item")
Result = TypeVar("Result")

WriteHandler = Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
"""Writes all items of a batch that are of its kind; returns for each, in their order, a result or an error."""

log = get_logger("storage.queued_write")

FEW = 4
"""A batch of fewer writes is small: what it does besides is a large part of what each of its callers waits for."""


class QueuedWrite:
    """One write that waits: `items` is how many it stands for, `weight` about how long it takes."""

    __slots__ = (
        "apart_until",
        "bounded",
        "essential",
        "future",
        "handler",
        "item",
        "items",
        "organization",
        "weight",
    )

    def __init__(
        self,
        handler: WriteHandler[Any, Any],
        item: Any,
        items: int,
        weight: int,
        bounded: bool,
        essential: bool,
        organization: int | None,
    ) -> None:
        self.apart_until: float | None = None
        self.bounded = bounded
        self.essential = essential
        self.organization = organization
        self.handler = handler
        self.item = item
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.items = items
        self.weight = weight

    def report(self, result: Any) -> None:
        """Tell the caller its result, or its error."""
        if not self.future.done():  # else its caller was cancelled; the write is stored all the same
            _settle(self.future, result)


class Written(Struct):
    """A batch whose commit was asked for: `unknown` if its outcome is not known."""

    results: list[Any]
    after_commit: list[Callable[[], None]]
    bookkeeping: list[Callable[[], None]]
    unknown: OutcomeUnknown | None = None

    def report(self, batch: Sequence[QueuedWrite]) -> list[Callable[[], None]]:
        """Report to each caller its result, and do what follows from the commit; return the bookkeeping that is left.

        If its outcome is not known, all of that is done later. Where callers are few, deliveries are sent before these
        go on, and the bookkeeping is left: a subscriber waits for nothing that can be done after. Where they are many,
        each turn of the event loop does as much anyway.
        """
        if self.unknown is not None:
            self._report_later(batch, self.unknown)
            return []
        if len(batch) >= FEW:
            self._report_results(batch)
            call_all([*self.after_commit, *self.bookkeeping])
            return []
        if self.after_commit:
            call_all(self.after_commit)
            # A delivery that was woken begins its attempt in the next turn: the callers go on behind it. Those of the
            # next batch may go on before them: no two writes that are not awaited one after another have an order.
            asyncio.get_running_loop().call_soon(self._report_results, batch)
        else:
            self._report_results(batch)
        return self.bookkeeping

    def _report_results(self, batch: Sequence[QueuedWrite]) -> None:
        for write, result in zip(batch, self.results, strict=True):
            write.report(result)

    def _report_later(self, batch: Sequence[QueuedWrite], unknown: OutcomeUnknown) -> None:
        """Report to each caller that the outcome is not known; when it is, its result, and do what follows from it."""
        log.warning("commit outcome unknown", writes=len(batch))
        if unknown.later is None:
            fail(batch, unknown)
            return
        loop = asyncio.get_running_loop()
        laters: list[asyncio.Future[Any]] = [loop.create_future() for _ in batch]
        for write, later in zip(batch, laters, strict=True):
            later.add_done_callback(_retrieved)
            write.report(OutcomeUnknown(later=later))

        def known(commit: "asyncio.Future[Any]") -> None:
            if commit.cancelled():
                for later in laters:
                    later.cancel()
                return
            error = commit.exception()
            for later, result in zip(laters, self.results, strict=True):
                _settle(later, result if error is None else error)
            if error is None:
                call_all([*self.after_commit, *self.bookkeeping])

        unknown.later.add_done_callback(known)


def call_all(calls: Iterable[Callable[[], None]]) -> None:
    """Call what follows from a commit."""
    for call in calls:
        try:
            call()
        except Exception as error:  # the write is on disk, and what waits in a row is found again
            log.error("call after a commit failed", exc_info=error)


def fail(writes: Iterable[QueuedWrite], error: Exception) -> None:
    """Report an error to each caller."""
    for write in writes:
        write.report(error)


def _retrieved(later: "asyncio.Future[Any]") -> None:
    """Mark an exception as seen: a caller need not wait for what becomes known later."""
    if not later.cancelled():
        later.exception()


def _settle(future: "asyncio.Future[Any]", result: Any) -> None:
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
