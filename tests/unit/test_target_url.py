"""What a registered URL becomes on the request line, and which host it names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.outbound.target_url import target_url

AS_THEY_ARE = [
    "/x?sig=a%2Bb%2Fc%3D%3D",
    "/x?sig=a%2bb%2fc%3d%3d",
    "/%2F%2f/%zz/%",
    "/a/../b/./c//d/",
    "/x?",
    "/?",
    "/x?a=b+c&a=b%20c&;d&&=",
    "/x;p=1?q=/?:@!$&'()*+,;=",
    "/x??y=?",
    '/{"a":[1]}|^`<>',
    "//evil.example.com/x",
    "/%C3%A9?%E9",
    "/x?url=https%3A%2F%2Fh.example%2F%3Fa%3Db",
]


@pytest.mark.parametrize("target", AS_THEY_ARE)
def test_path_and_query_stay_as_registered(target: str) -> None:
    assert target_url(f"https://h.example{target}").raw_path_qs == target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://h.example", "/"),
        ("https://h.example?a=%2F", "/?a=%2F"),
        ("https://h.example?", "/?"),
        ("https://h.example/x#fragment", "/x"),
        ("https://h.example/x?a#fragment?b", "/x?a"),
        ("https://h.example#fragment", "/"),
        ("https://h.example/é?ü=\N{SNOWMAN}%2F", "/%C3%A9?%C3%BC=%E2%98%83%2F"),
        ("https://h.example/a b?c d", "/a%20b?c%20d"),
        ("https://h.example/a\r\nx: y", "/a%0D%0Ax:%20y"),
    ],
)
def test_only_what_a_request_line_cannot_have_changes(url: str, target: str) -> None:
    assert target_url(url).raw_path_qs == target


@pytest.mark.parametrize(
    ("authority", "host", "port", "named"),
    [
        ("h.example", "h.example", 443, "h.example"),
        ("H.EXAMPLE:443", "h.example", 443, "h.example"),
        ("h.example:8443", "h.example", 8443, "h.example:8443"),
        ("bücher.example", "xn--bcher-kva.example", 443, "xn--bcher-kva.example"),
        ("[2606:4700::1111]:8443", "2606:4700::1111", 8443, "[2606:4700::1111]:8443"),
        ("93.184.216.34", "93.184.216.34", 443, "93.184.216.34"),
    ],
)
def test_hosts_are_as_connections_and_the_host_header_need_them(
    authority: str, host: str, port: int, named: str
) -> None:
    url = target_url(f"HTTPS://{authority}/%2F?a=%2B")
    assert (url.scheme, url.raw_host, url.port, url.host_port_subcomponent) == ("https", host, port, named)
    assert url.raw_path_qs == "/%2F?a=%2B"


@pytest.mark.parametrize("text", ["", "rubbish", "ftp://h.example/", "https:///x", "https://", "//h.example/x"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        target_url(text)


@given(st.text(alphabet=[each for each in string.printable[:94] if each != "#"], max_size=200))
def test_any_printable_ascii_stays_as_registered(rest: str) -> None:
    assert target_url(f"http://h.example/{rest}").raw_path_qs == f"/{rest}"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_what_is_sent_is_always_one_word_of_ascii(rest: str) -> None:
    target = target_url(f"http://h.example/{rest}").raw_path_qs
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
