"""Who counts as one client."""

import pytest

from receiver.domain.client_networks import UNKNOWN, client_network


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, UNKNOWN),
        ("", UNKNOWN),
        ("/run/socket", UNKNOWN),
        ("192.0.2.7\n[error]", UNKNOWN),
    ],
)
def test_a_client_is_an_ipv4_address_or_the_64_of_an_ipv6_address(host: str | None, network: str) -> None:
    assert client_network(host) == network
