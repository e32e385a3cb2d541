"""The last look at a lease, right before a request is written to its connection.

A lease is checked when the work under it begins. But a process can be frozen at any point after that (SIGSTOP, a
paused virtual machine), and when it wakes, its lease may have ended and another process may have done the work. So a
request that must not be sent without its lease is made `under` it, and what writes it to a connection calls
`check_lease` when the next step is to write. A process that is frozen between that look and the system call
cannot be stopped; its caller sees afterwards that the lease has ended, and counts it
(`ringback_sent_without_lease_total`).
"""

from contextvars import ContextVar
from datetime import datetime, timedelta

from msgspec import Struct

from receiver.clock import utc_now
from receiver.context_values import Within

_MARGIN = timedelta(seconds=1)
"""Left of a lease when a request is written: the time in which it reaches the other side."""


class LeaseEnded(Exception):
    """The lease under which a request was to be sent has ended; nothing was sent."""


class SendLease(Struct):
    """The lease under which requests are sent; `until` is by the service's clock."""

    until: datetime

    def may_send(self) -> bool:
        """Return whether a request may still be written."""
        return utc_now() < self.until - _MARGIN

    def has_ended(self) -> bool:
        """Return whether another process may hold the lease by now."""
        return utc_now() >= self.until


_present: ContextVar[SendLease | None] = ContextVar("ringback_send_lease", default=None)


def under(lease: SendLease) -> Within[SendLease | None]:
    """Within it, send the requests of this context under `lease`."""
    return Within(_present, lease)


def check_lease() -> None:
    """Raise `LeaseEnded` if there is a lease under which requests are sent here, and it has ended."""
    lease = _present.get()
    if lease is not None and not lease.may_send():
        raise LeaseEnded
