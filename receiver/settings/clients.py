"""Of clients: what they may use of the service, and how many requests they may make."""

from functools import cached_property
from typing import Annotated

from pydantic import Field

from receiver.organization_limits import OrganizationLimits, default_limits
from receiver.setting_values import ANY_ORIGIN, read_origins, read_rate
from receiver.settings.group import Rate, SettingsGroup, checked_by


class ClientSettings(SettingsGroup):
    """Of clients: what they may use of the service, and how many requests they may make."""

    cors_origins: Annotated[str, checked_by(read_origins)] = ""
    """Origins of web pages, comma-separated, that may call the API from a browser (CORS); `*` for any. None by default.

    An origin is `scheme://host` or `scheme://host:port`.
    """
    key_rate: Rate = "1000/s"
    """Requests with one API key, to all processes together, for a key without its own `rate_limit`.

    A number and a period. As many requests as the number may come at once. The default stops only a client that has
    got out of control.
    """
    wrong_key_rate: Rate = "20/m"
    """Wrong API keys from one address before its further ones get 429: a number and a period.

    An address is an IPv4 address, or the /64 of an IPv6 address. Keys that are right are never slowed.
    """
    organization_limits: Annotated[str, checked_by(default_limits)] = ""
    """What each organization may use, where the operator has set nothing else for it: `name=value`, comma-separated.

    Such as `webhooks=500,creates_per_second=unlimited`. The names and defaults are in
    `receiver/organization_limits.py`; they stop only what has got out of control.
    """
    max_request_bytes: Annotated[int, Field(ge=1024)] = 16_777_216
    """The largest body of an API request, in bytes (16 MiB); a larger one gets 413.

    Enough for the pictures that clients put into inputs as base64.
    """
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    """The largest body of a provider's webhook, in bytes (1 MiB); a larger one gets 413."""

    @cached_property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins of web pages that may call the API, as browsers write them; `("*",)` for any."""
        origins = read_origins(self.cors_origins)
        return (ANY_ORIGIN,) if ANY_ORIGIN in origins else origins

    @cached_property
    def key_requests(self) -> tuple[float, float]:
        """`RINGBACK_KEY_RATE` as (number of requests, period in seconds)."""
        return read_rate(self.key_rate)

    @cached_property
    def wrong_key_tries(self) -> tuple[float, float]:
        """`RINGBACK_WRONG_KEY_RATE` as (number of wrong keys, period in seconds)."""
        return read_rate(self.wrong_key_rate)

    @cached_property
    def default_limits(self) -> OrganizationLimits:
        """The limits of an organization for which none are set."""
        return default_limits(self.organization_limits)
