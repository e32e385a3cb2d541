"""Pools that organizations share, so that whatever one of them does, the others find some of it free.

The rule is that of a dynamic threshold: one may use as much as is free. Alone it so gets half of the pool, two that
want all get a third each, k of them leave 1/(k+1) free. No part is set aside for anyone, and nothing has to be
configured.
"""

from collections import OrderedDict

HOST_IN_FLIGHT = 512
"""The attempts that may be in flight in one process to one target host, so at most 256 of one organization."""
_LARGEST_HOST_WINDOW = HOST_IN_FLIGHT // 2
"""It is the first one too."""
_SMALLEST_HOST_WINDOW = 32
"""Not lower: of many endpoints at one host some may hang, each with one attempt at a time, and delay no other."""
_TRIED_AGAIN = 4


class PoolShare:
    """How much one of those that share a pool uses of it, and the most that it may use (None: no limit of its own)."""

    def __init__(self, most: int | None = None) -> None:
        self.used = 0
        self.most = most


class SharedPool:
    """A pool of `size`, whose users are organizations: `key` is that of one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._crowded: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """How much of it is not used."""
        return self._size - self._used

    def admits(self, key: int, share: PoolShare) -> bool:
        """Return whether this one may use one more. One whom only the others keep from it is remembered for `end`."""
        if share.most is not None and share.used >= share.most:
            return False
        if share.used >= self.free:
            self._crowded[key] = None
            return False
        return True

    def begin(self, share: PoolShare, count: int = 1) -> None:
        """Use `count` more."""
        share.used += count
        self._used += count

    def end(self, share: PoolShare, count: int = 1) -> list[int]:
        """Use `count` less; return the first few of those whom `admits` refused, who are to try again."""
        share.used -= count
        self._used -= count
        return [self._crowded.popitem(last=False)[0] for _ in range(min(_TRIED_AGAIN, len(self._crowded)))]


class TargetHost:
    """A host and port that is sent to, shared by the organizations whose webhooks are there."""

    def __init__(self) -> None:
        self.pool = SharedPool(HOST_IN_FLIGHT)
        self.shares: dict[int, HostShare] = {}

    def share_of(self, organization: int) -> "HostShare":
        """Return the share of one organization in this host."""
        if organization not in self.shares:
            self.shares[organization] = HostShare(self, organization)
        return self.shares[organization]


class HostShare(PoolShare):
    """What one organization has in flight to one host, whose attempts adapt as those of an endpoint do.

    The window is of one organization, not of the host: a host of many customers' webhooks does not slow down for all of
    them because those of one customer do not answer.
    """

    def __init__(self, host: TargetHost, organization: int) -> None:
        super().__init__(_LARGEST_HOST_WINDOW)
        self.host = host
        self.organization = organization
        self.waiting: OrderedDict[int, None] = OrderedDict()
        """The keys of the endpoints that wait until this share is admitted again."""

    def admits(self) -> bool:
        """Return whether one more attempt may begin."""
        return self.host.pool.admits(self.organization, self)

    def answered(self) -> None:
        """Widen the window: an attempt succeeded."""
        self.most = min((self.most or 0) + 1, _LARGEST_HOST_WINDOW)

    def unanswered(self) -> None:
        """Halve the window: an attempt got no answer."""
        self.most = max(_SMALLEST_HOST_WINDOW, (self.most or 0) // 2)
