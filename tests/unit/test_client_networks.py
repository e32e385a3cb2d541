"""Who counts as one client, and how many log lines there are about clients."""

import pytest

from receiver.domain import client_networks
from receiver.domain.client_networks import UNKNOWN, NetworkLines, client_network


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


def test_a_client_has_a_line_a_minute_that_counts_what_it_did() -> None:
    lines = NetworkLines()
    assert [lines.due("a", second) for second in (0, 1, 30, 59, 60, 61, 119, 120)] == [1, 0, 0, 0, 4, 0, 0, 3]
    assert lines.due("b", 121) == 1


def test_all_clients_together_have_a_bounded_number_of_lines() -> None:
    lines = NetworkLines()
    assert sum(lines.due(f"{number}", 5) > 0 for number in range(500)) == 20
    assert lines.due("new", 64) == 0
    assert lines.due("new", 66) == 2, "what had no line is counted in the next"


def test_so_few_clients_are_remembered_that_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_networks, "_MOST_NETWORKS", 10)
    lines = NetworkLines()
    for number in range(100):
        lines.due(f"{number}", 5)
    assert len(lines._last) == 10
