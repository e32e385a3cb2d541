"""A service with short leases and caches, so that a test does not wait long for what a dead process has leased.

The service has no settings for this: its leases must outlast every call that it may make, and so outlast every test.
"""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

SHORT_TIMEOUTS: Mapping[str, Any] = {"provider_timeout_seconds": "2", "delivery_timeout_seconds": "2"}
"""Settings with which every call is shorter than the short leases."""
_LEASE_SECONDS = 9.0
"""Longer than a delivery's timeout plus 5 s: no delivery attempt begins with less time left in its lease."""

_SHORTER: dict[str, Any] = {
    "receiver.app.task_lease_seconds": lambda _timeout: _LEASE_SECONDS,
    "receiver.app.delivery_lease_seconds": lambda _timeout: _LEASE_SECONDS,
    "receiver.workers.dispatch.lease_seconds": lambda _timeout: _LEASE_SECONDS,
    "receiver.api.idempotency.LEASE_SECONDS": 4.0,
    "receiver.api.idempotency._RENEW_SECONDS": 1.0,
}


def shorten_leases() -> None:
    """Shorten the leases of this process; call it before the service is created."""
    for target, value in _SHORTER.items():
        patch(target, value).start()
