"""Slows clients that send wrong API keys, by their address, and looks few of their keys up.

A client may send some wrong keys (20 within a minute); each further one is answered with 429 and a `Retry-After` that
grows to a minute. Many may share an address: an office behind one router, all clients of a proxy that is not trusted.
So an address is never refused, only its wrong keys are. While it is slowed, or while many unknown keys come from
anywhere, the hashes of all live keys are held in memory (`receiver.api.live_keys`), and any other key is wrong.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from receiver.api.live_keys import LiveKeys
from receiver.domain.client_networks import client_network
from receiver.domain.log_lines import LogLines
from receiver.errors import NotAuthenticated, RateLimited, RingbackError
from receiver.storage.database import Database
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, wrong_keys

log = get_logger("api.wrong_keys")

LONGEST_SECONDS = 60.0
"""The longest `Retry-After`."""
_MOST_NETWORKS = 10_000
"""How many addresses are remembered. With more, those whose last wrong key is longest ago are forgotten."""
_UNKNOWN_SECONDS = 1.0
"""For this long a key that was looked up and not found is not looked up again."""
_MOST_UNKNOWN = 1_024
_LOOKUPS_A_SECOND = 50
"""With more look-ups than this, of keys that are not cached, the live keys are held in memory."""


class WrongKeys:
    """Which unknown keys are worth a look-up, and how each wrong one is refused.

    `tries` wrong keys within `seconds` are not slowed. `clock` is monotonic, in seconds.
    """

    def __init__(
        self, database: Database, tries: float, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._live = LiveKeys(database, clock)
        self._clock = clock
        self._interval = seconds / tries
        self._allowed = max(seconds, self._interval)
        self._paid_at: OrderedDict[str, float] = OrderedDict()
        """By network: each wrong key moves it on by `_interval`; from when it is past, nothing is remembered."""
        self._looked_up_at: dict[str, float] = {}
        """By slowed network: when a key of it was last looked up because the live keys are not known."""
        self._unknown: dict[str, float] = {}
        """By hash of a key that does not exist: until when that is believed."""
        self._lookups = 0
        self._lookups_until = 0.0
        self._lines = LogLines()

    async def may_exist(self, hashed: str, host: str | None) -> bool:
        """Return whether a key that is not cached has to be looked up; False if it is known to be wrong.

        A slowed client's key also counts as wrong while it cannot be known to exist: all but one a second, while the
        database does not answer or has more keys than are held in memory.
        """
        now = self._clock()
        if self._unknown.get(hashed, 0.0) > now:
            return False
        network = client_network(host)
        is_slowed = self._paid_at.get(network, 0.0) - now > self._allowed - self._interval
        if not is_slowed and not self._is_flooded(now):
            return True
        exists = await self._live.has(hashed)
        if exists is not None:
            return exists
        return not is_slowed or self._may_look_up(network, now)

    def found_none(self, hashed: str) -> None:
        """Note that no live key has this hash: it is not looked up again for a second."""
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[hashed] = self._clock() + _UNKNOWN_SECONDS

    def created(self, hashed: str) -> None:
        """Note that this process created a key with this hash: it exists from now on."""
        self._unknown.pop(hashed, None)
        self._live.add(hashed)

    def refusal(self, host: str | None) -> RingbackError:
        """Count a wrong key; return the error for it: `NotAuthenticated`, or `RateLimited` for a slowed client."""
        now, network = self._clock(), client_network(host)
        paid_at = max(now, self._paid_at.pop(network, now)) + self._interval
        early_by = paid_at - now - self._allowed
        is_slowed = early_by > 1e-6
        self._paid_at[network] = min(paid_at, now + self._allowed + LONGEST_SECONDS - self._interval)
        if len(self._paid_at) > _MOST_NETWORKS:
            self._paid_at.popitem(last=False)
        counted(wrong_keys, "slowed" if is_slowed else "refused").inc()
        if not is_slowed:
            return NotAuthenticated("the API key is unknown or was revoked: check it, or create a new one")
        if count := self._lines.due(network, now):
            log.warning("wrong API keys slowed", address=network, wrong_keys=count)
        wait = math.ceil(min(early_by + self._interval, LONGEST_SECONDS))
        return RateLimited(f"too many wrong API keys from this address: try again in {wait} s", retry_after=wait)

    def _is_flooded(self, now: float) -> bool:
        """Count a look-up; return whether there are too many of them in this second."""
        if now >= self._lookups_until:
            self._lookups, self._lookups_until = 0, now + 1.0
        self._lookups += 1
        return self._lookups > _LOOKUPS_A_SECOND

    def _may_look_up(self, network: str, now: float) -> bool:
        if now < self._looked_up_at.get(network, float("-inf")) + 1.0:
            return False
        if len(self._looked_up_at) >= _MOST_NETWORKS:
            self._looked_up_at.clear()
        self._looked_up_at[network] = now
        return True
