"""Custom headers: which are accepted, and which Ringback or the connection reserves."""

import pytest

from receiver.domain.custom_headers import MOST_HEADERS, check_headers, redacted_headers
from receiver.domain.redaction import REDACTED
from receiver.errors import BadRequest

FORBIDDEN = [
    "webhook-id",
    "Webhook-Signature",
    "WEBHOOK-anything",
    "X-Pi-Event",
    "x-pi-signature",
    "X-Webhook-Secret",
    "Content-Type",
    "Content-Length",
    "content-encoding",
    "Host",
    "User-Agent",
    "Accept-Encoding",
    "Connection",
    "Keep-Alive",
    "Proxy-Authorization",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Expect",
]


def test_a_header_that_is_not_reserved_is_accepted_unchanged() -> None:
    given = {"Authorization": "Bearer abc", "X-Tenant": "schön", "x_y~z": "", "Cookie": "a=b; c=d"}
    assert check_headers(given) == given


def test_null_and_an_empty_object_are_no_headers() -> None:
    assert check_headers(None) is None
    assert check_headers({}) is None


def test_white_space_around_a_value_is_removed() -> None:
    assert check_headers({"X-A": " b\t"}) == {"X-A": "b"}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_header_that_ringback_sets_or_the_connection_uses_is_refused(name: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_headers({"X-Tenant": "a", name: "x"})
    assert refusal.value.param == f"headers.{name}"
    assert "any name but" in refusal.value.message


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "a\r\nb", "größe", "a\0", "x" * 101, ":authority", "(a)"])
def test_an_invalid_header_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="the name must have"):
        check_headers({name: "x"})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0", "\x7f", "a\tb", "\u2028", "v" * 1001, "\ud800"])
def test_an_invalid_header_value_is_refused_and_not_repeated_in_the_error(value: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_headers({"X-Tenant": value})
    assert refusal.value.param == "headers.X-Tenant"
    assert value not in refusal.value.message


def test_header_names_are_not_case_sensitive() -> None:
    with pytest.raises(BadRequest, match="named twice"):
        check_headers({"X-Tenant": "a", "x-tenant": "b"})


def test_the_number_of_headers_is_limited() -> None:
    headers = {f"X-{number}": "a" for number in range(MOST_HEADERS)}
    assert check_headers(headers) == headers
    with pytest.raises(BadRequest, match="at most 20"):
        check_headers({**headers, "X-Y": "a"})


def test_redacted_values_stand_for_the_present_values_when_sent_back() -> None:
    present = {"Authorization": "Bearer abc", "X-Tenant": "acme"}
    redacted = redacted_headers(present)
    assert redacted == {"Authorization": REDACTED, "X-Tenant": REDACTED}
    assert check_headers({**redacted, "X-Tenant": "other"}, present) == {**present, "X-Tenant": "other"}
    assert check_headers({"authorization": REDACTED}, present) == {"authorization": "Bearer abc"}
    with pytest.raises(BadRequest, match="this header has none"):
        check_headers({"X-New": REDACTED}, present)
