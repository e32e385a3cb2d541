"""What one organization may use of what all share, so that none can take it from the others.

The defaults are far above what an honest user needs: they stop a client that has got out of control, or means harm. The
operator changes the defaults by `RINGBACK_ORGANIZATION_LIMITS`, and those of one organization by
`ringback organization limits`.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from receiver.errors import LimitReached

UNLIMITED = "unlimited"


class OrganizationLimits(Struct, frozen=True):
    """The limits of one organization; None is no limit. Each counts all processes together."""

    webhooks: int | None = 1_000
    """Registered webhooks that are not removed."""
    streams: int | None = 2_000
    """Event streams and waiting requests (long polls) that are open."""
    running_replays: int | None = 10
    """Replays and recoveries that have deliveries left to queue."""
    open_tasks: int | None = 200_000
    """Tasks that have not ended."""
    creates_per_second: float | None = 1_000
    """New tasks, also of bulk creates and runs; ten seconds' worth may come at once."""
    deliveries_in_flight: int | None = 512
    """Attempts at deliveries that are being made."""
    deliveries_per_second: float | None = 10_000
    """Attempts at deliveries that are begun."""
    stored_bytes: int | None = 100 * 1024**3
    """Bytes of tasks in the database, about: `task.stored_bytes` of all of them."""
    idempotency_keys: int | None = 2_000_000
    """Idempotency keys that are kept, each for a day."""

    def with_values(self, given: Mapping[str, Any] | None) -> "OrganizationLimits":
        """Return these limits with those that are given changed.

        A value is a number of 0 or more, or None or "unlimited" for no limit. Raises `ValueError` that names what is
        wrong.
        """
        values: dict[str, Any] = {name: _value(name, value) for name, value in (given or {}).items()}
        return replace(self, **values)


def limit_reached(name: str, message: str) -> LimitReached:
    """Return the refusal of what would be more than an organization may keep; `message` says why and what to do."""
    return LimitReached(f"{message}, or ask the operator for a higher limit", param=name)


def default_limits(text: str) -> OrganizationLimits:
    """Return the limits of an organization for which none are set, from the value of `RINGBACK_ORGANIZATION_LIMITS`.

    The value is a list of `name=value`, comma-separated. Raises `ValueError`.
    """
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    try:
        return OrganizationLimits().with_values({name.strip(): value.strip() for name, _, value in pairs})
    except ValueError as error:
        raise ValueError(f"{error}, such as webhooks=500,streams=unlimited") from None


LIMIT_NAMES = OrganizationLimits.__struct_fields__
_FRACTIONS = frozenset({"creates_per_second", "deliveries_per_second"})


def _value(name: str, value: Any) -> float | None:
    if name not in LIMIT_NAMES:
        raise ValueError(f"{name[:80]} is not a limit; the limits are {', '.join(LIMIT_NAMES)}")
    if value is None or value == UNLIMITED:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 2**53:
        raise ValueError(f"{name} must be a number of 0 or more, or {UNLIMITED!r}")
    if name in _FRACTIONS:
        return number
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number")
    return int(number)
