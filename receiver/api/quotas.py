"""Refuses what is over the limits of the caller's organization (`organization_limits`), before any work is done.

Too many of what is kept (webhooks, replays, bytes) is 409, too much at the moment (tasks that are open or created,
streams) is 429 with `Retry-After`. Where processes share a limit, together they may exceed it a little: each counts
what it did itself at once, and what others did with a delay.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from time import monotonic

from receiver.domain.limit_parts import Part, whole
from receiver.errors import OrganizationRateLimited
from receiver.organization_limits import OrganizationLimits, limit_reached
from receiver.storage.organization_usage import Admission, OrganizationUsage

BURST_SECONDS = 10.0
"""As many tasks as may be created in this time may be created at once."""
OPEN_TASKS_RETRY_SECONDS = 10
STREAMS_RETRY_SECONDS = 5
_LONGEST_RETRY_SECONDS = 3600
_DEMAND_SECONDS = 2.0
"""Over about how long the demand is averaged that a process reports for its part of a shared limit."""


class Quotas:
    """Counts and checks what organizations do. `part` is this process's part of a limit; all of it by default.

    `delivery_use` returns what an organization uses of the limits of deliveries, by their names. `clock` is monotonic,
    in seconds.
    """

    def __init__(
        self,
        limits_of: Callable[[int], OrganizationLimits],
        usage: OrganizationUsage,
        *,
        part: Part = whole,
        delivery_use: Callable[[int], Mapping[str, float]] = lambda _organization_id: {},
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.limits_of = limits_of
        self.usage = usage
        self.delivery_use = delivery_use
        self._part = part
        self._clock = clock
        self._creates: dict[int, _CreateBucket] = {}
        self._streams: Counter[int] = Counter()

    async def begin_creates(self, organization_id: int, tasks: int, size: int) -> Admission:
        """Do what `admit_creates` does, once open tasks were counted: the first call after a start waits for that.

        Raises `StorageUnavailable` too.
        """
        await self.usage.ensure_counted(organization_id)
        return self.admit_creates(organization_id, tasks, size)

    async def begin_again(self, organization_id: int) -> Admission:
        """Do what `admit_again` does, once open tasks were counted. Raises `StorageUnavailable` too."""
        await self.usage.ensure_counted(organization_id)
        return self.admit_again(organization_id)

    def admit_creates(self, organization_id: int, tasks: int, size: int) -> Admission:
        """Count tasks that are to be created, all of them or none; `size` is about their bytes.

        The caller creates them within the admission, which is a context. Raises `LimitReached` for the bytes,
        `OrganizationRateLimited` for open tasks and tasks a second.
        """
        limits = self.limits_of(organization_id)
        self._check_bytes(organization_id, size, limits)
        self._check_open(organization_id, tasks, limits)
        self._take_creates(organization_id, tasks, limits)
        return self.usage.admit(organization_id, tasks, size)

    def admit_again(self, organization_id: int) -> Admission:
        """Count a task that has ended and is to be open again. Raises `OrganizationRateLimited`."""
        self._check_open(organization_id, 1, self.limits_of(organization_id))
        return self.usage.admit(organization_id, 1, 0)

    def take_stream(self, organization_id: int) -> None:
        """Count a stream or a long poll, which ends with `leave_stream`. Raises `OrganizationRateLimited`."""
        limit, used = self.limits_of(organization_id).streams, self._streams[organization_id]
        if limit is not None:
            allowed = limit * self._part(f"organization-streams:{organization_id}", used + 1)
            if used >= (max(1.0, allowed) if limit else 0):
                raise _refused(
                    "streams",
                    f"the organization may have {limit:,} streams and waiting requests open, and has as many: end some",
                    STREAMS_RETRY_SECONDS,
                )
        self._streams[organization_id] = used + 1

    def leave_stream(self, organization_id: int) -> None:
        """Count a stream or a long poll as ended."""
        self._streams[organization_id] -= 1

    def waiting(self, organization_id: int) -> AbstractContextManager[None]:
        """Return a context manager that counts a long poll. Entering it raises `OrganizationRateLimited`."""
        return _Counted(self, organization_id)

    def open_streams(self, organization_id: int) -> int:
        """Return how many streams and long polls are open in this process."""
        return self._streams[organization_id]

    def creates_per_second(self, organization_id: int) -> float:
        """Return how many tasks a second this process was asked to create in the last seconds."""
        bucket = self._creates.get(organization_id)
        return 0.0 if bucket is None else bucket.demand_at(self._clock())

    def _check_bytes(self, organization_id: int, size: int, limits: OrganizationLimits) -> None:
        limit = limits.stored_bytes
        if limit is not None and (used := self.usage.stored_bytes(organization_id)) + size > limit:
            raise limit_reached(
                "stored_bytes",
                f"the organization's tasks may have {limit:,} bytes and have about {used:,}, and these would be about "
                f"{size:,}: wait until older tasks are purged",
            )

    def _check_open(self, organization_id: int, tasks: int, limits: OrganizationLimits) -> None:
        limit = limits.open_tasks
        if limit is not None and (used := self.usage.open_tasks(organization_id)) + tasks > limit:
            self.usage.count_soon(organization_id)
            raise _refused(
                "open_tasks",
                f"the organization may have {limit:,} tasks that have not ended and has about {used:,}, so {tasks:,} "
                "more cannot be: wait until some have ended, or cancel some",
                OPEN_TASKS_RETRY_SECONDS,
            )

    def _take_creates(self, organization_id: int, tasks: int, limits: OrganizationLimits) -> None:
        limit = limits.creates_per_second
        if limit is None:
            return
        now = self._clock()
        bucket = self._creates.get(organization_id)
        if bucket is None:
            bucket = self._creates[organization_id] = _CreateBucket(now)
        wanted = bucket.wanted(tasks, now)
        rate = limit * self._part(f"organization-creates:{organization_id}", wanted)
        if (seconds := bucket.take(tasks, rate, now)) > 0:
            raise _refused(
                "creates_per_second",
                f"the organization may create {limit:,g} tasks a second, {BURST_SECONDS:g} seconds' worth of them at "
                "once, and has done so: create them more slowly",
                math.ceil(min(_LONGEST_RETRY_SECONDS, seconds)),
            )


class _Counted(AbstractContextManager[None]):
    """Counts a long poll; of a generator thousands that wait would hold several times as much."""

    __slots__ = ("_organization_id", "_quotas")

    def __init__(self, quotas: Quotas, organization_id: int) -> None:
        self._quotas = quotas
        self._organization_id = organization_id

    def __enter__(self) -> None:
        self._quotas.take_stream(self._organization_id)

    def __exit__(self, *_: object) -> None:
        self._quotas.leave_stream(self._organization_id)


class _CreateBucket:
    """A token bucket of `BURST_SECONDS` of its rate, which is given at each take because it changes.

    What is kept is the debt: the tokens that are missing to a full bucket.
    """

    __slots__ = ("_at", "_debt", "_demand", "_demand_at")

    def __init__(self, now: float) -> None:
        self._debt = 0.0
        self._at = now
        self._demand = 0.0
        self._demand_at = now

    def wanted(self, tasks: int, now: float) -> float:
        """Count the demand for `tasks`; return it in tasks a second."""
        self._demand = self.demand_at(now) + tasks / _DEMAND_SECONDS
        self._demand_at = now
        return self._demand

    def demand_at(self, now: float) -> float:
        """Return the demand in tasks a second, averaged over the last seconds."""
        return self._demand * math.exp((self._demand_at - now) / _DEMAND_SECONDS)

    def take(self, tasks: int, rate: float, now: float) -> float:
        """Take `tasks` tokens and return 0, or take none and return in how many seconds they are there.

        More than the bucket holds can be taken from a full one, so that a call with many tasks is possible at all.
        """
        if rate <= 0:
            return math.inf
        self._debt = max(0.0, self._debt - (now - self._at) * rate)
        self._at = now
        excess = self._debt + min(tasks, BURST_SECONDS * rate) - BURST_SECONDS * rate
        if excess > 1e-9:
            return excess / rate
        self._debt += tasks
        return 0.0


def _refused(name: str, message: str, seconds: int) -> OrganizationRateLimited:
    return OrganizationRateLimited(
        f"{message}, and try again in {seconds} s, or ask the operator for a higher limit",
        param=name,
        retry_after=seconds,
    )
