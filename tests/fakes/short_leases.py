"""A service that does not wait long for the dead, nor remember long.

The real one has no such switches: its leases outlast every call that it may make, and so every test.
"""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

SHORT_TIMEOUTS: Mapping[str, Any] = {"provider_timeout_seconds": "2", "delivery_timeout_seconds": "2"}
"""Settings that go with it."""
_LEASE_SECONDS = 9.0
"""Longer than a delivery's timeout and 5 s: with less left of its lease none is begun."""

_SHORTER: dict[str, Any] = {
    "receiver.app.task_lease_seconds": lambda _timeout: _LEASE_SECONDS,
    "receiver.app.delivery_lease_seconds": lambda _timeout: _LEASE_SECONDS,
    "receiver.workers.dispatch.lease_seconds": lambda _timeout: _LEASE_SECONDS,
    "receiver.api.idempotency.LEASE_SECONDS": 4.0,
    "receiver.api.idempotency._RENEW_SECONDS": 1.0,
    "receiver.api.auth._REMEMBERED_SECONDS": 1.0,
}


def shorten_leases() -> None:
    """Make this process such a service, before it is put together."""
    for target, value in _SHORTER.items():
        patch(target, value).start()
