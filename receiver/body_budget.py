"""How many bytes of large bodies one process holds at a time; a body that finds no room waits for its turn.

So do large answers, such as pages of large tasks, before they are read.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from receiver.errors import Unavailable

_BODY_BYTES = 256 * 1024 * 1024
_MEMORY_SHARE = 8
"""Bodies may fill an eighth of the memory of a container: what is parsed from one takes several times its size."""
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_Task = asyncio.Task[Any]


def default_body_bytes() -> int:
    """Return how many bytes of bodies this process may hold: 256 MiB, or less in a container with little memory."""
    limits = [limit // _MEMORY_SHARE for limit in map(_memory_limit, _MEMORY_LIMITS) if limit is not None]
    return min([_BODY_BYTES, *limits])


def _memory_limit(file: Path) -> int | None:
    """Return the memory limit of the control group, in bytes; None if it has none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


class _Holder(Struct):
    """One request that holds bytes of a body; `owner` is whose they are, None if that does not matter."""

    owner: Hashable
    size: int = 0


class BodyBudget:
    """Bounds the bytes that requests hold, to `most` and to half of it for one owner; both in bytes.

    A request holds what it took until its asyncio task ends, or until it gave all of it back. The oldest request that
    holds bytes is never made to wait: so a body larger than the bound passes alone, and requests that each hold a part
    of their body do not wait for each other without end. The bound may be passed by that one body. One that has waited
    for `seconds` is refused, and `on_refusal` is called; `held_things` says in the error what is held.
    """

    def __init__(
        self, most: int, seconds: float, on_refusal: Callable[[], None], held_things: str = "large bodies"
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._on_refusal = on_refusal
        self._held_things = held_things
        self._holders: dict[_Task, _Holder] = {}
        """The oldest first."""
        self._owners: Counter[Hashable] = Counter()
        self._waiting: dict[asyncio.Future[None], tuple[_Holder, int]] = {}
        """The first in line first."""
        self.held = 0
        """Bytes that are held now."""

    @property
    def is_pressed(self) -> bool:
        """Whether a request waits for room: then a slow body does not get the time that a least rate would give it."""
        return bool(self._waiting)

    async def take(self, owner: Hashable, size: int) -> None:
        """Take `size` bytes more for the request of this asyncio task. Raises `Unavailable` if there is no room."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        holder = self._holders.get(task)
        if holder is None:
            holder = self._holders[task] = _Holder(owner)
            task.add_done_callback(self._release)
        if self._has_room(holder, size):
            self._add(holder, size)
        else:
            await self._wait(holder, size)

    def give_back(self, size: int | None = None) -> None:
        """Give back `size` bytes that this asyncio task took and does not need; None stands for all of them."""
        task = asyncio.current_task()
        if task is not None and (holder := self._holders.get(task)) is not None:
            self._add(holder, -(holder.size if size is None else size))
            if holder.size <= 0:  # a stream goes on: while it holds nothing it is not the oldest
                task.remove_done_callback(self._release)
                del self._holders[task]
            self._serve_waiting()

    def _has_room(self, holder: _Holder, size: int) -> bool:
        if next(iter(self._holders.values()), holder) is holder:
            return True
        if holder.owner is not None and self._owners[holder.owner] + size > self._most // 2:
            return False
        return self.held + size <= self._most

    def _add(self, holder: _Holder, size: int) -> None:
        holder.size += size
        self.held += size
        if holder.owner is not None:
            self._owners[holder.owner] += size
            if not self._owners[holder.owner]:
                del self._owners[holder.owner]

    async def _wait(self, holder: _Holder, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (holder, size)
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except TimeoutError:
            self._on_refusal()
            raise Unavailable(
                f"too many bytes of {self._held_things} are held at the moment (RINGBACK_BODIES_IN_FLIGHT_BYTES): "
                "send it again",
                retry_after=5,
            ) from None
        finally:
            self._waiting.pop(turn, None)

    def _serve_waiting(self) -> None:
        for turn, (holder, size) in list(self._waiting.items()):
            if not turn.done() and self._has_room(holder, size):
                del self._waiting[turn]
                self._add(holder, size)
                turn.set_result(None)

    def _release(self, task: _Task) -> None:
        holder = self._holders.pop(task)
        self._add(holder, -holder.size)
        self._serve_waiting()


class BodyBudgets(Struct, frozen=True):
    """One budget for API requests, one for providers' webhooks and one for answers: none takes another's room."""

    api: BodyBudget
    inbound: BodyBudget
    answers: BodyBudget

    @classmethod
    def of(cls, most: int, seconds: float, on_refusal: Callable[[], None]) -> "BodyBudgets":
        """Return budgets of `most` bytes together, a quarter for inbound webhooks; answers have a quarter besides."""
        budget = partial(BodyBudget, seconds=seconds, on_refusal=on_refusal)
        return cls(
            api=budget(most - most // 4),
            inbound=budget(most // 4),
            answers=budget(most // 4, held_things="large answers"),
        )

    @property
    def is_pressed(self) -> bool:
        """Whether a body waits for room."""
        return self.api.is_pressed or self.inbound.is_pressed
