"""The address guard: which URLs it allows, at registration and again at each connection."""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from receiver.errors import BadRequest, SettingsError
from receiver.outbound.guard import AddressGuard, TargetForbidden
from receiver.settings import Settings

PUBLIC = "93.184.216.34"
NAME = "hooks.example.com"
DOES_NOT_RESOLVE = "the host name does not resolve: check its spelling and its DNS records"


class Names(AbstractResolver):
    """A resolver that returns the addresses that were set last."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Iterable[str] = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        host.encode("idna")  # like the real one, raises UnicodeError for labels that are too long
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


class NoNames(Names):
    """A resolver that knows no name."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class SlowNames(Names):
    """A resolver that never answers."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        await asyncio.Event().wait()
        raise AssertionError


def guard(*addresses: str, private: bool = False, allowed: str = "") -> AddressGuard:
    """Return a guard built from settings, for which every name resolves to `addresses`."""
    settings = Settings(allow_private_targets=private, allowed_targets=allowed)
    return AddressGuard.from_settings(settings, inner=Names(*(addresses or (PUBLIC,))))


async def refusal(guarded: AddressGuard, url: str) -> str:
    with pytest.raises(BadRequest) as refused:
        await guarded.check(url)
    assert refused.value.code == "invalid_endpoint_url"
    assert refused.value.param == "endpoint_url"
    return refused.value.message


def literal(address: str) -> str:
    return f"https://[{address}]/" if ":" in address else f"https://{address}/"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/path?token=a%20b#part",
        "HTTPS://Hooks.Example.COM:8443/",
        "https://hooks.example.com./",
        "https://bücher.example/ä",
        "https://under_score.example.com/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:8443/",
        "https://" + PUBLIC + "/" + "x" * 2000,
    ],
)
async def test_https_to_a_public_address_is_allowed(url: str) -> None:
    await guard().check(url)
    guard().check_literal(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.example.com/", "must start with https://"),
        ("http://8.8.8.8/", "must start with https://"),
        ("ftp://hooks.example.com/", "must start with https://"),
        ("file:///etc/passwd", "must start with https://"),
        ("//hooks.example.com/", "must start with https://"),
        ("hooks.example.com", "must start with https://"),
        ("", "must start with https://"),
        ("https:hooks.example.com", "must start with https://"),
        ("https:///hooks.example.com", "name a host"),
        ("https://?x", "name a host"),
        ("https://:443/", "host or port"),
        ("https://user@hooks.example.com/", "a user name"),
        ("https://user:password@hooks.example.com/", "a user name"),
        ("https://@hooks.example.com/", "a user name"),
        ("https://hooks.example.com:443@127.0.0.1/", "a user name"),
        ("https://[]@/", "a user name"),
        ("https://hooks.example.com:0/", "host or port"),
        ("https://hooks.example.com:65536/", "host or port"),
        ("https://hooks.example.com:x/", "host or port"),
        ("https://hooks.example.com/\n", "not contain white space"),
        ("https://hooks.example.com/a b", "not contain white space"),
        (" https://hooks.example.com/", "not contain white space"),
        ("https://hooks.\texample.com/", "not contain white space"),
        ("https://hooks.example.com/\x00", "control characters"),
        ("https://hooks.example.com\\@127.0.0.1/", "backslashes"),
        ("https://hooks.example.com/\u200b", "control characters"),
        ("https://hooks.example.com/\ud800", "control characters"),
        ("https://hooks.example.com/" + "x" * 2048, "at most 2048"),
        ("https://hooks..example.com/", "not a valid name"),
        ("https://.example.com/", "not a valid name"),
        ("https://hooks.example.com../", "not a valid name"),
        ("https://hooks%2eexample.com/", "percent signs"),
        ("https://[fe80::1%25eth0]/", "a zone"),
        ("https://[2606:4700::1111%251]/", "a zone"),
        ("https://" + "x" * 64 + ".example.com/", "not a valid name"),
        ("https://" + "x." * 127 + "com/", "not a valid name"),
        ("https://hooks.example.com[::1]/", "host or port"),
        ("https://[::1", "host or port"),
        ("https://[hooks.example.com]/", "host or port"),
    ],
)
async def test_a_bad_url_is_refused_with_the_rule_that_it_breaks(url: str, reason: str) -> None:
    assert reason in await refusal(guard(), url)
    with pytest.raises(TargetForbidden, match="URL"):
        guard().check_literal(url)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "0",
        "0x",
        "8.8.2056",
        "999.999.999.999",
        "1.2.3.4.5",
        "hooks.example.1",
    ],
)
@pytest.mark.parametrize("guarded", [guard(), guard(private=True), guard(allowed="0.0.0.0/0,::/0")])
async def test_an_unusual_spelling_of_an_address_is_refused_whatever_it_means(guarded: AddressGuard, host: str) -> None:
    assert "address in its usual form" in await refusal(guarded, f"https://{host}/")


@pytest.mark.parametrize("host", ["１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①"])
async def test_an_address_in_other_digits_is_checked_as_the_address_that_it_becomes(host: str) -> None:
    assert await refusal(guard(), f"https://{host}/") == "127.0.0.1 is not public"


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "198.18.0.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::7f00:1",
]
FORBIDDEN = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:169.254.169.254",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "64:ff9b:1::1",
    "64:ff9b::169.254.169.254",
    "100::1",
    "2001:2::1",
    "2001:db8::1",
    "2002:a9fe:a9fe::",
    "3fff::1",
    "4000::1",
    "5f00::1",
]
WRAPPED_PUBLIC = ["::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::8.8.8.8"]


def teredo(server: str, client: str) -> str:
    hidden = int(IPv4Address(client)) ^ 0xFFFF_FFFF
    return str(IPv6Address((0x2001_0000 << 96) | (int(IPv4Address(server)) << 64) | hidden))


@pytest.mark.parametrize("address", PRIVATE + FORBIDDEN + [teredo("8.8.8.8", "10.0.0.1")])
async def test_an_address_that_is_not_public_is_refused_in_the_url_and_behind_a_name(address: str) -> None:
    reason = f"{ip_address(address)} is not public"
    assert await refusal(guard(), literal(address)) == reason
    assert await refusal(guard(address), f"https://{NAME}/") == reason
    assert await refusal(guard(PUBLIC, address), f"https://{NAME}/") == reason
    with pytest.raises(TargetForbidden, match="is not public"):
        guard().check_literal(literal(address))
    with pytest.raises(TargetForbidden, match="is not public"):
        await guard(PUBLIC, address).resolver().resolve(NAME, 443)


@pytest.mark.parametrize("address", [*WRAPPED_PUBLIC, teredo("8.8.8.8", "8.8.4.4")])
async def test_a_wrapped_address_is_checked_by_the_address_inside(address: str) -> None:
    await guard().check(literal(address))
    await guard(address).check(f"https://{NAME}/")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("address", PRIVATE)
async def test_private_targets_can_be_allowed_as_a_whole(address: str, scheme: str) -> None:
    guarded = guard(address, private=True)
    await guarded.check(literal(address).replace("https", scheme))
    await guarded.check(f"{scheme}://{NAME}/")
    assert await guarded.resolver(scheme).resolve(NAME, 80)


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_link_local_and_metadata_are_not_private(address: str) -> None:
    assert "neither public nor private" in await refusal(guard(private=True), literal(address))
    assert "neither public nor private" in await refusal(guard(address, private=True), "http://a.example")


@pytest.mark.parametrize("allowed", ["10.1.0.0/16", "10.1.2.3", "192.168.0.0/16, 10.1.2.0/24", "::ffff:10.1.2.3"])
async def test_an_allowed_network_is_allowed_and_its_neighbours_are_not(allowed: str) -> None:
    guarded = guard("::ffff:10.1.2.3" if ":" in allowed else "10.1.2.3", allowed=allowed)
    for scheme in ("http", "https"):
        await guarded.check(f"{scheme}://{NAME}/")
        assert await guarded.resolver(scheme).resolve(NAME, 80)
    assert await refusal(guarded, "https://10.2.0.1/") == "10.2.0.1 is not public"
    assert await refusal(guarded, "https://127.0.0.1/") == "127.0.0.1 is not public"


async def test_a_wrapped_address_in_an_allowed_network_is_allowed() -> None:
    await guard(allowed="10.0.0.0/8").check("http://[::ffff:10.0.0.1]/")
    await guard(allowed="10.0.0.0/8").check("http://[64:ff9b::10.0.0.1]/")


async def test_an_allowed_network_does_not_allow_http_to_public_addresses() -> None:
    guarded = guard(PUBLIC, allowed="10.0.0.0/8")
    assert "must start with https://" in await refusal(guarded, f"http://{NAME}/")
    with pytest.raises(TargetForbidden, match="must start with https://"):
        await guarded.resolver("http").resolve(NAME, 80)
    assert await guarded.resolver("https").resolve(NAME, 443)


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("hooks.internal", "hooks.internal"),
        ("Hooks.Internal.", "hooks.internal"),
        ("hooks.internal", "HOOKS.internal."),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("localhost", "localhost"),
    ],
)
@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", PUBLIC])
async def test_an_allowed_host_is_allowed_whatever_it_resolves_to(allowed: str, host: str, address: str) -> None:
    for scheme in ("http", "https"):
        await guard(address, allowed=allowed).check(f"{scheme}://{host}:8080/")


async def test_an_allowed_host_allows_no_other_host() -> None:
    guarded = guard("10.0.0.1", allowed="hooks.internal")
    for host in ("other.internal", "x.hooks.internal", "hooks.internal.example.com"):
        assert await refusal(guarded, f"https://{host}/") == "10.0.0.1 is not public"
    assert await refusal(guarded, "https://10.0.0.1/") == "10.0.0.1 is not public"


@pytest.mark.parametrize("allowed", ["[::1]", "::1"])
async def test_a_single_ipv6_address_can_be_allowed(allowed: str) -> None:
    await guard(allowed=allowed).check("http://[::1]:8080/")


@pytest.mark.parametrize("allowed", ["hooks.internal:80", "*.internal", "a b", "127.1"])
def test_an_invalid_allowed_target_is_an_error_in_the_settings(allowed: str) -> None:
    with pytest.raises(SettingsError, match="RINGBACK_ALLOWED_TARGETS"):
        guard(allowed=allowed)


@pytest.mark.parametrize("url", ["https://localhost/", "https://localhost./", "https://a.localhost/"])
async def test_localhost_by_name_is_refused(url: str) -> None:
    assert await refusal(guard("127.0.0.1"), url) == "127.0.0.1 is not public"


async def test_the_real_resolver_knows_localhost() -> None:
    guarded = AddressGuard.from_settings(Settings())
    assert (await refusal(guarded, "https://localhost/")) in ("127.0.0.1 is not public", "::1 is not public")


@pytest.mark.parametrize("names", [NoNames(), Names()])
async def test_a_name_that_does_not_resolve_is_refused_for_that_reason(names: AbstractResolver) -> None:
    guarded = AddressGuard(inner=names)
    assert await refusal(guarded, f"https://{NAME}/") == DOES_NOT_RESOLVE
    with pytest.raises(OSError, match="not") as failure:
        await guarded.resolver().resolve(NAME, 443)
    assert not isinstance(failure.value, TargetForbidden)


async def test_a_name_that_takes_too_long_to_resolve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.outbound.guard.LONGEST_LOOKUP", 0.01)
    assert "does not resolve" in await refusal(AddressGuard(inner=SlowNames()), f"https://{NAME}/")


@pytest.mark.parametrize(
    ("names", "reason"),
    [(NoNames(), "Name or service not known"), (SlowNames(), "not resolved in")],
)
async def test_why_a_name_does_not_resolve_is_in_the_log_and_not_in_the_refusal(
    names: AbstractResolver, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.outbound.guard.LONGEST_LOOKUP", 0.01)
    with capture_logs() as records:
        assert await refusal(AddressGuard(inner=names), f"https://{NAME}/a-token") == DOES_NOT_RESOLVE
    assert [(record["host"], reason in record["reason"]) for record in records] == [(NAME, True)]
    assert "a-token" not in str(records)


async def test_the_resolver_checks_each_connection_of_a_name_that_is_rebound() -> None:
    names = Names(PUBLIC)
    guarded = AddressGuard(inner=names)
    await guarded.check(f"https://{NAME}/")
    resolver = guarded.resolver()
    assert [answer["host"] for answer in await resolver.resolve(NAME, 443)] == [PUBLIC]
    names.addresses = ["127.0.0.1"]
    with pytest.raises(TargetForbidden, match=r"^127\.0\.0\.1 is not public$"):
        await resolver.resolve(NAME, 443)


async def test_a_link_local_answer_with_a_zone_is_refused() -> None:
    assert "is not public" in await refusal(guard("fe80::1%eth0"), f"https://{NAME}/")


async def test_literal_addresses_are_not_resolved() -> None:
    names = Names(PUBLIC)
    await AddressGuard(inner=names).check("https://8.8.8.8/")
    assert names.asked == []


@given(st.text() | st.from_regex(r"\Ahttps://[^/]{0,30}/.{0,10}\Z"))
def test_any_text_is_allowed_or_refused_without_another_error(url: str) -> None:
    try:
        guard().check_literal(url)
    except TargetForbidden:
        return
    assert url.lower().startswith("https://")


@given(st.ip_addresses())
def test_no_address_is_allowed_that_python_calls_local(address: IPv4Address | IPv6Address) -> None:
    try:
        guard().check_literal(literal(str(address)))
    except TargetForbidden:
        return
    inner = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
    assert not inner.is_loopback
    assert not inner.is_link_local
    assert not inner.is_multicast
    assert not inner.is_unspecified
