"""Tests connect to loopback only (`tests.fakes.loopback`)."""

import socket

import pytest

from receiver.lookups.queries import NameNotResolved, Queries
from tests.fakes.loopback import refuse_connect


@pytest.mark.parametrize("host", ["1.1.1.1", "10.0.0.1", "169.254.169.254", "192.0.2.1", "example.com"])
def test_a_connect_that_is_not_to_loopback_is_refused(host: str) -> None:
    with socket.socket() as connecting, pytest.raises(OSError, match="only to loopback"):
        refuse_connect("socket.connect", (connecting, (host, 443)))


@pytest.mark.parametrize("host", ["2606:4700::1111", "::ffff:1.1.1.1"])
def test_a_connect_over_ipv6_that_is_not_to_loopback_is_refused(host: str) -> None:
    with socket.socket(socket.AF_INET6) as connecting, pytest.raises(OSError, match="only to loopback"):
        refuse_connect("socket.connect", (connecting, (host, 443, 0, 0)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost"])
def test_a_connect_to_loopback_is_not_refused(host: str) -> None:
    with socket.socket() as connecting:
        refuse_connect("socket.connect", (connecting, (host, 443)))


@pytest.mark.parametrize("host", ["::1", "::ffff:127.0.0.1"])
def test_a_connect_to_loopback_over_ipv6_is_not_refused(host: str) -> None:
    with socket.socket(socket.AF_INET6) as connecting:
        refuse_connect("socket.connect", (connecting, (host, 443, 0, 0)))


def test_a_unix_socket_is_not_refused() -> None:
    with socket.socket(socket.AF_UNIX) as connecting:
        refuse_connect("socket.connect", (connecting, "/run/a.socket"))


def test_it_holds_in_the_process_of_the_tests() -> None:
    # 0.0.0.0 is this machine: were the connect not refused here, it would not leave it.
    with socket.socket() as connecting, pytest.raises(OSError, match="only to loopback"):
        connecting.connect(("0.0.0.0", 9))


async def test_no_dns_server_is_asked_and_names_of_this_machine_are_known() -> None:
    with pytest.raises(OSError, match="only names of this machine"):
        socket.getaddrinfo("example.com", 443)
    assert socket.getaddrinfo("localhost", 443)
    assert socket.getaddrinfo("127.0.0.1", 443)
    queries = Queries()
    with pytest.raises(NameNotResolved):
        await queries.addresses("example.com")
    assert await queries.addresses("localhost")
    await queries.aclose()
