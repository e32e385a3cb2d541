"""How several processes divide one limit: each takes a part of it, by how much it wants and how much the others want.

The parts of all processes add up to 1, so together they keep to the limit; a process that wants nothing has no part,
and so it does not hold the others back. Most of a limit is divided in proportion to what each process wants. A tenth is
divided equally, so that a process that wanted little until now may begin with more at once.

What the others want is known from exchanges, one a second. A limit that has become busy in this process begins with
1/N, for N live processes, until two exchanges have told what the others want: others may have begun at the same time,
and the first exchange may come before theirs. Without an exchange for `_KNOWN_SECONDS` the part is 1/N again.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

MOST_OF_A_KIND = 500
"""How many limits of a kind (their names begin alike, up to a colon) are exchanged at once. While this number is busy,
each further one of the kind has the part 1/N."""
HOLD_SECONDS = 2.0
"""A limit counts as busy for this long after its part was last asked for."""
_KNOWN_SECONDS = 10.0
_EQUAL_SHARE = 0.1
"""The fraction of a limit that is divided equally between the processes that want any of it."""


class Part(Protocol):
    """Returns this process's part of a limit (`LimitParts.part`)."""

    def __call__(self, name: str, wanted: float, hold: float = HOLD_SECONDS) -> float:
        """Return the part, above 0 and at most 1."""
        ...


class OthersUse(Struct, frozen=True):
    """What the other processes want of one limit together, and how many of them want any."""

    wanted: float = 0.0
    processes: int = 0


class _Use(Struct):
    """This process's use of one limit. `exchanges` is how many have told what the `others` want."""

    wanted: float
    until: float
    others: OthersUse = OthersUse()
    exchanges: int = 0


class LimitParts:
    """The parts that this process has of the limits that are busy in it. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._kinds = Counter[str]()
        """How many of `_uses` are of each kind."""
        self._processes = 1
        self._learned_at = clock()

    def part(self, name: str, wanted: float, hold: float = HOLD_SECONDS) -> float:
        """Return this process's part of a limit, above 0 and at most 1, and note how much it wants.

        `wanted` is of any unit, if all processes use the same. The limit counts as busy for `hold` seconds from now.
        """
        now = self._clock()
        use = self._uses.get(name)
        if use is None:
            self._begin(name, wanted, now + hold)
            return self._equal
        use.wanted, use.until = wanted, now + hold
        if use.exchanges == 0 or now - self._learned_at > _KNOWN_SECONDS:
            return self._equal
        if not use.others.processes:
            return self._equal if use.exchanges == 1 else 1.0
        everything = wanted + use.others.wanted
        proportional = wanted / everything if everything > 0 else 1 / (1 + use.others.processes)
        return (1 - _EQUAL_SHARE) * proportional + _EQUAL_SHARE / (1 + use.others.processes)

    def is_idle(self) -> bool:
        """Return whether no limit is busy in this process, and the others know it."""
        now = self._clock()
        return all(not use.wanted and use.until <= now for use in self._uses.values())

    def to_tell(self) -> dict[str, float]:
        """Return what this process wants of each limit: 0 once when it is busy no longer, and then it is forgotten."""
        now = self._clock()
        for name, use in list(self._uses.items()):
            if use.until <= now and not use.wanted:
                del self._uses[name]
                self._kinds[_kind(name)] -= 1
            elif use.until <= now:
                use.wanted = 0.0
        return {name: use.wanted for name, use in self._uses.items()}

    def learn(self, others: Mapping[str, OthersUse], processes: int) -> None:
        """Note what an exchange told: the others' use of each limit, and how many processes are live, this included."""
        self._processes = max(1, processes)
        self._learned_at = self._clock()
        for name, use in others.items():
            if name in self._uses:
                self._uses[name].others = use
                self._uses[name].exchanges += 1

    def _begin(self, name: str, wanted: float, until: float) -> None:
        kind = _kind(name)
        if self._kinds[kind] < MOST_OF_A_KIND:
            self._uses[name] = _Use(wanted, until)
            self._kinds[kind] += 1

    @property
    def _equal(self) -> float:
        return 1 / self._processes


def _kind(name: str) -> str:
    return name.partition(":")[0]


def whole(name: str, wanted: float, hold: float = HOLD_SECONDS) -> float:
    """Return 1.0: the part of each limit where one process serves alone (SQLite)."""
    return 1.0
