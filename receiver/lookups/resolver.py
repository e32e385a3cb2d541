"""A resolver that no tenant's names can hold up for another.

Each organization has a share of the look-ups that are under way; what is beyond it waits, and holds up no others.
A look-up ends after a fixed time, whatever the DNS servers do, and its place is free then. A name that could not be
looked up is not tried again for some seconds. For one organization a name is looked up once, however many ask for it
meanwhile.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextvars import ContextVar
from time import monotonic
from typing import Protocol

from msgspec import Struct, field

from receiver.context_values import Within
from receiver.lookups.names import ResolvedName
from receiver.lookups.queries import NameAddresses, NameNotResolved, NoSuchName, Queries
from receiver.telemetry.metrics import counted, name_lookups

LONGEST_LOOKUP = 5.0
"""Seconds, the wait for a place included."""
_MOST = 1024
_SHARE = 32
_NO_NAME_SECONDS = 5.0
_SILENT_SECONDS = 5.0
"""For how long a name is not looked up again after its DNS servers gave no answer; it doubles each time."""
_LONGEST_SILENT_SECONDS = 40.0
_MOST_FAILURES = 4096
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV

_organization: ContextVar[int | None] = ContextVar("ringback_lookups_of", default=None)


def looked_up_for(organization_id: int) -> Within[int | None]:
    """Within it, count the look-ups of this context as those of an organization."""
    return Within(_organization, organization_id)


def present_organization() -> int | None:
    """Return the organization for which names are looked up here; None if it is none's."""
    return _organization.get()


class AddressQueries(Protocol):
    """What asks the DNS servers: `receiver.lookups.queries.Queries`."""

    async def addresses(self, host: str, family: int = socket.AF_UNSPEC) -> NameAddresses:
        """Return the addresses of a name. Raises `NameNotResolved`, and `NoSuchName` if that is known."""

    async def aclose(self) -> None:
        """Close the sockets."""


class _Failure(Struct):
    """Why a name was not resolved; it is not looked up again before `until`, which is `pause` seconds later."""

    reason: str
    until: float
    pause: float


class _Share(Struct):
    """The places of one organization, and how many look-ups have one or wait for one."""

    places: asyncio.Semaphore
    users: int = 0


class _Outcome(Struct):
    """What a look-up found, or the reason why it found nothing."""

    found: NameAddresses = field(default_factory=list)
    reason: str = ""


_Key = tuple[int | None, str, int]


class NameLookups:
    """Resolves names: at most `most` look-ups at a time, at most `share` of them for one organization.

    A look-up takes at most `seconds`. `purpose` is what the counter calls it. It can be made without an event loop.
    """

    def __init__(
        self,
        purpose: str,
        *,
        queries: AddressQueries | None = None,
        servers: Sequence[str] = (),
        seconds: float = LONGEST_LOOKUP,
        most: int = _MOST,
        share: int = _SHARE,
    ) -> None:
        self._purpose = purpose
        self._queries: AddressQueries = queries or Queries(servers)
        self._seconds = seconds
        self._share = share
        self._places = asyncio.Semaphore(most)
        self._shares: dict[int | None, _Share] = {}
        self._under_way: dict[_Key, asyncio.Task[_Outcome]] = {}
        self._failures: dict[str, _Failure] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolvedName]:
        """Return the addresses of a name. Raises `NameNotResolved`."""
        failure = self._failures.get(host)
        if failure is not None and monotonic() < failure.until:
            self._count("failed a moment ago")
            raise NameNotResolved(failure.reason)
        look_up = self._look_up_once((present_organization(), host, family))
        await asyncio.wait((look_up,))  # a caller that gives up takes no answer from the others that wait for it
        if look_up.cancelled():
            raise NameNotResolved("the service stops")
        outcome = look_up.result()
        if outcome.reason:
            raise NameNotResolved(outcome.reason)
        return [
            ResolvedName(hostname=host, host=address, port=port, family=each, proto=0, flags=_NUMERIC)
            for each, address in outcome.found
        ]

    async def close(self) -> None:
        """End the look-ups and close the sockets. A later look-up opens them again."""
        for task in self._under_way.values():
            task.cancel()
        await self._queries.aclose()

    def _look_up_once(self, key: _Key) -> asyncio.Task[_Outcome]:
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._look_up(*key))
            task.add_done_callback(lambda _: self._under_way.pop(key))
        return task

    async def _look_up(self, organization_id: int | None, host: str, family: int) -> _Outcome:
        share = self._shares.setdefault(organization_id, _Share(asyncio.Semaphore(self._share)))
        share.users += 1
        started = None
        try:
            async with asyncio.timeout(self._seconds), share.places, self._places:
                started = monotonic()
                found = await self._queries.addresses(host, family)
        except NoSuchName as error:
            self._count("no such name")
            return self._failed(host, str(error), _NO_NAME_SECONDS)
        except TimeoutError:
            if started is None:
                self._count("no place")
                return _Outcome(reason="too many names of this organization wait for their DNS servers")
            # Not long after the wait for a place: the name may be all right.
            if monotonic() - started < self._seconds / 2:
                self._count("no place")
                return _Outcome(reason="its DNS servers did not answer in time")
            self._count("timed out")
            return self._failed(host, "its DNS servers did not answer in time")
        except OSError as error:
            self._count("failed")
            return self._failed(host, str(error))
        finally:
            share.users -= 1
            if not share.users:
                del self._shares[organization_id]
        self._count("found")
        self._failures.pop(host, None)
        return _Outcome(found)

    def _failed(self, host: str, reason: str, pause: float | None = None) -> _Outcome:
        """Remember that a name failed, for `pause` seconds, else for longer each time; return the outcome."""
        earlier = self._failures.pop(host, None)
        if pause is None:
            pause = _SILENT_SECONDS if earlier is None else min(2 * earlier.pause, _LONGEST_SILENT_SECONDS)
        while len(self._failures) >= _MOST_FAILURES:
            del self._failures[next(iter(self._failures))]
        self._failures[host] = _Failure(reason, monotonic() + pause, pause)
        return _Outcome(reason=reason)

    def _count(self, result: str) -> None:
        counted(name_lookups, self._purpose, result).inc()
