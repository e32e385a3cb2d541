"""How many open tasks and stored bytes each organization has, in memory: no create but the first waits for a count.

Both are counted in the background, and what this process created since is added. So they lag: by what other processes
created since the last count, and by what has ended, grown or been purged since. Open tasks are counted of organizations
that create, up to what their limit needs, in an index; the first create in a process waits for that, so that a start
lets none exceed its limit. Bytes are summed over the whole table, page by page, because no
index has them; that reads every row once in a while, at a tenth of one reading connection's time at most.

A create that is under way is counted apart: a count may read before its commit, and may not make it forgotten.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import TracebackType

from msgspec import Struct, field

from receiver.clock import utc_now
from receiver.errors import OutcomeUnknown
from receiver.organization_limits import OrganizationLimits
from receiver.remembered import Remembered
from receiver.storage.database import Database
from receiver.storage.organizations import (
    count_idempotency_keys,
    count_open_tasks,
    count_running_replays,
    count_webhooks,
    stored_bytes_after,
)

MOST_COUNTED = 1_000_000
"""Where there is no limit, things are counted up to this number."""
_COUNT_SECONDS = 1.0
"""Between two counts of one organization at least. A count that takes long is repeated more rarely."""
_STALE_SECONDS = 30.0
"""After this time the next create asks for a count, far from the limit too: other processes may have created."""
_SUM_SECONDS = 60.0
_SUMMED_AT_ONCE = 1000
_FEWEST_AT_ONCE = 50
_MOST_AT_ONCE = 20_000
_QUICK_SECONDS = 0.01
_SLOW_SECONDS = 0.05
_PAUSES = 10
"""How many times as long as the reading before it a pause is."""


class _Use(Struct):
    """What one organization uses: as counted, as created by this process since, and as being created now."""

    open_counted: int = 0
    counted_to: int = 0
    """As far as the open tasks were counted: there may be more."""
    open_made: int = 0
    open_under_way: int = 0
    bytes_made: int = 0
    bytes_under_way: int = 0
    counted_at: float = float("-inf")
    not_before: float = float("-inf")
    """When the open tasks may be counted again."""
    first: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held for a count that creates wait for."""


class Admission:
    """Tasks that are being created, from their admission until it is known whether they are stored."""

    __slots__ = ("_size", "_tasks", "_use")

    def __init__(self, use: _Use, tasks: int, size: int) -> None:
        self._use = use
        self._tasks = tasks
        self._size = size
        use.open_under_way += tasks
        use.bytes_under_way += size

    def stored(self) -> None:
        """Note that the tasks are stored."""
        self._use.open_made += self._tasks
        self._use.bytes_made += self._size
        self._end()

    def _end(self) -> None:
        self._use.open_under_way -= self._tasks
        self._use.bytes_under_way -= self._size
        self._tasks = self._size = 0

    def __enter__(self) -> "Admission":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note that they are stored, or are not if there was an error; when that is not known, they may be."""
        if error is None or isinstance(error, OutcomeUnknown | asyncio.CancelledError):
            self.stored()
        else:
            self._end()


class OrganizationUsage:
    """What organizations use. `limits_of` says up to where to count."""

    def __init__(
        self,
        database: Database,
        limits_of: Callable[[int], OrganizationLimits],
        *,
        sum_seconds: float = _SUM_SECONDS,
    ) -> None:
        self._database = database
        self._limits_of = limits_of
        self._sum_seconds = sum_seconds
        self._uses: defaultdict[int, _Use] = defaultdict(_Use)
        self._asked: set[int] = set()
        self._wake = asyncio.Event()
        self._summed: Counter[int] = Counter()
        self._partial: Counter[int] = Counter()
        self._counts: dict[int, Remembered[dict[str, int]]] = {}

    def open_tasks(self, organization_id: int) -> int:
        """Return how many tasks have not ended, about."""
        use = self._uses[organization_id]
        return use.open_counted + use.open_made + use.open_under_way

    def stored_bytes(self, organization_id: int) -> int:
        """Return how many bytes the organization's tasks have, about; after a start less, until all were summed."""
        use = self._uses[organization_id]
        known = max(self._summed[organization_id], self._partial[organization_id])
        return known + use.bytes_made + use.bytes_under_way

    def admit(self, organization_id: int, tasks: int, size: int) -> Admission:
        """Count tasks of `size` bytes in all that are being created; have the open ones counted if that may matter."""
        use = self._uses[organization_id]
        admission = Admission(use, tasks, size)
        limit = self._limits_of(organization_id).open_tasks
        if limit is not None:
            is_near = self.open_tasks(organization_id) * 2 >= limit
            if is_near or monotonic() - use.counted_at >= _STALE_SECONDS:
                self.count_soon(organization_id)
        return admission

    def count_soon(self, organization_id: int) -> None:
        """Have the open tasks of an organization counted in the background."""
        self._asked.add(organization_id)
        self._wake.set()

    async def count(self, organization_id: int) -> int:
        """Count the open tasks of an organization now; return their number. Raises `StorageUnavailable`."""
        limit = self._limits_of(organization_id).open_tasks
        use = self._uses[organization_id]
        began, made = monotonic(), use.open_made
        most = MOST_COUNTED if limit is None else limit + 1
        rows = await self._database.read(count_open_tasks(organization_id, most))
        use.open_counted, use.counted_to, use.counted_at = int(rows[0]["count"]), most, monotonic()
        use.open_made -= min(made, use.open_made)  # another count may have read at the same time
        use.not_before = use.counted_at + max(_COUNT_SECONDS, (use.counted_at - began) * _PAUSES)
        return self.open_tasks(organization_id)

    async def ensure_counted(self, organization_id: int) -> None:
        """Count the open tasks of an organization if they were not counted up to its limit yet, as after a start.

        Otherwise as many as the limit could be created in addition. Raises `StorageUnavailable`.
        """
        use = self._uses[organization_id]
        if self._is_unknown(use, organization_id):
            async with use.first:
                if self._is_unknown(use, organization_id):
                    await self.count(organization_id)

    def _is_unknown(self, use: _Use, organization_id: int) -> bool:
        limit = self._limits_of(organization_id).open_tasks
        return limit is not None and use.open_counted >= use.counted_to <= limit

    async def counts(self, organization_id: int) -> dict[str, int]:
        """Return how much of some limits an organization uses, by their names. Raises `StorageUnavailable`.

        However often it is asked, the database counts for a tenth of the time at most.
        """
        if organization_id not in self._counts:
            count = partial(self._count_all, organization_id)
            self._counts[organization_id] = Remembered(count, 0.0, times=_PAUSES)
        return await self._counts[organization_id].get()

    async def _count_all(self, organization_id: int) -> dict[str, int]:
        limit = self._limits_of(organization_id).idempotency_keys
        most_keys = MOST_COUNTED if limit is None else max(limit + 1, MOST_COUNTED)
        queries = {
            "webhooks": count_webhooks(organization_id, MOST_COUNTED),
            "running_replays": count_running_replays(organization_id, MOST_COUNTED),
            "idempotency_keys": count_idempotency_keys(organization_id, utc_now(), most_keys),
        }
        found = {name: int((await self._database.read(query))[0]["count"]) for name, query in queries.items()}
        return {**found, "open_tasks": await self.count(organization_id)}

    async def count_tasks(self) -> None:
        """Count the open tasks of the organizations for which that was asked, until cancelled."""
        while True:
            await self._wake.wait()
            organization_id = min(self._asked, key=lambda each: self._uses[each].not_before)
            if (wait := self._uses[organization_id].not_before - monotonic()) > 0:
                await asyncio.sleep(wait)
                continue
            self._asked.discard(organization_id)
            if not self._asked:
                self._wake.clear()
            await self.count(organization_id)

    async def sum_bytes(self) -> None:
        """Sum the bytes of all tasks again and again, until cancelled."""
        while True:
            took = await self._sum_once()
            await asyncio.sleep(max(self._sum_seconds, took * _PAUSES))

    async def _sum_once(self) -> float:
        """Read the whole table once, page by page; return how long reading took, in seconds."""
        self._partial.clear()
        after, rows, took = 0, _SUMMED_AT_ONCE, 0.0
        while True:
            began, made = monotonic(), {each: use.bytes_made for each, use in self._uses.items()}
            found = await self._database.read(stored_bytes_after(after, rows))
            seconds = monotonic() - began
            took += seconds
            for each in found:
                self._partial[each["organization_id"]] += int(each["bytes"])
            if sum(each["tasks"] for each in found) < rows:
                self._finish_sum(made)
                return took
            after = max(each["last"] for each in found)
            if seconds > _SLOW_SECONDS:
                rows = max(_FEWEST_AT_ONCE, rows // 2)
            elif seconds < _QUICK_SECONDS:
                rows = min(_MOST_AT_ONCE, rows * 2)
            await asyncio.sleep(seconds * _PAUSES)

    def _finish_sum(self, made: dict[int, int]) -> None:
        """Take the sum over; what this process had `made` before the last page was read is in it."""
        self._summed, self._partial = self._partial, Counter()
        for organization_id, size in made.items():
            self._uses[organization_id].bytes_made -= size
