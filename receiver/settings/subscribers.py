"""Of subscribers: which addresses they may have, and when deliveries are tried."""

from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from receiver.setting_values import read_delays, split_list
from receiver.settings.group import Seconds, SettingsGroup, checked_by


def _networks(targets: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part, strict=False) for part in split_list(targets) if "/" in part)


class SubscriberSettings(SettingsGroup):
    """Of subscribers: which addresses they may have, and when deliveries are tried."""

    allow_private_targets: bool = False
    """Whether subscribers may be http and on private or loopback addresses.

    `false` by default: an API client could otherwise make the service call addresses inside its network.
    """
    allowed_targets: Annotated[str, checked_by(_networks)] = ""
    """Networks (CIDR) and host names, comma-separated, that the address guard lets through. None by default."""
    retry_schedule: Annotated[str, checked_by(read_delays)] = "0,5,300,1800,7200,18000,36000,50400,72000,86400"
    """Seconds before each delivery attempt, the first one included; as many attempts as there are numbers.

    The default is the schedule that Standard Webhooks recommends: ten attempts in about three days.
    """
    delivery_timeout_seconds: Seconds = 20
    """The longest time of one delivery attempt, in seconds. Standard Webhooks recommends 15 to 30."""

    @cached_property
    def retry_delays(self) -> tuple[float, ...]:
        """Seconds before each delivery attempt, the first one included."""
        return read_delays(self.retry_schedule)

    @cached_property
    def allowed_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks that the address guard lets through."""
        return _networks(self.allowed_targets)

    @cached_property
    def allowed_hosts(self) -> frozenset[str]:
        """The host names (and single addresses) that the address guard lets through."""
        return frozenset(part.lower() for part in split_list(self.allowed_targets) if "/" not in part)
