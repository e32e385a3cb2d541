"""The URL of a call to a provider is read as httpx reads it."""

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.http_client.origin import Origin
from receiver.providers.target import read_target

SEGMENT = st.text(alphabet=st.sampled_from('aZ09-._~:%/?=&+ {ü"[]@;,|#'), max_size=12)


@given(st.lists(SEGMENT, max_size=4), st.sampled_from(["http://a.example", "https://A.example:443", "http://[::1]:80"]))
@example(["v1", "tasks", "0198c0e0-aaaa"], "https://api.example:8443")
@example([".", "a"], "http://a.example")
@example(["a", "..", "b."], "http://a.example")
@example(["a?"], "http://a.example")
@example(["a?b=c&d"], "http://a.example")
def test_the_target_is_that_of_httpx(segments: list[str], base: str) -> None:
    url = "/".join([base, *segments])
    request = httpx.Request("GET", url)
    server, path = read_target(url)
    assert path.encode() == request.url.raw_path
    assert server.host == request.headers["host"]
    assert server.scheme == request.url.scheme
    assert server.origin == Origin(
        request.url.raw_host.decode(), request.url.port or {"http": 80, "https": 443}[server.scheme]
    )
    assert server.authorization is None or "@" in url.partition("/")[2]


def test_a_name_that_is_not_ascii_is_asked_for_in_its_idna_form() -> None:
    server, path = read_target("https://bücher.example")
    assert (server.origin, path) == (Origin("xn--bcher-kva.example", 443), "/")


def test_a_user_and_password_become_a_header_and_stand_nowhere_else() -> None:
    server, path = read_target("https://user:p%40ss@gateway.example/a")
    assert server == ("https", Origin("gateway.example", 443), "gateway.example", "Basic dXNlcjpwQHNz")
    assert path == "/a"


@pytest.mark.parametrize("url", ["ftp://a.example/", "/path", "http:///path", "a.example", ""])
def test_what_is_no_http_url_with_a_host_is_not_supported(url: str) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        read_target(url)


@pytest.mark.parametrize("path", ["", "/a b"])
def test_a_port_that_there_is_not_is_not_supported(path: str) -> None:
    assert read_target(f"http://a.example:65535{path}")[0].origin.port == 65535
    for port in (65536, 99999):
        with pytest.raises(httpx.UnsupportedProtocol):
            read_target(f"http://a.example:{port}{path}")
