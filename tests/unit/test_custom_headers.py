"""Headers of a user's own: which are taken, and which would be ours, the connection's, or two requests."""

import pytest

from receiver.domain.custom_headers import MOST_HEADERS, check_headers, hidden
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


def test_what_is_nobody_else_s_is_taken_as_it_is() -> None:
    given = {"Authorization": "Bearer abc", "X-Tenant": "schön", "x_y~z": "", "Cookie": "a=b; c=d"}
    assert check_headers(given) == given


def test_none_and_an_empty_object_are_none() -> None:
    assert check_headers(None) is None
    assert check_headers({}) is None


def test_white_space_around_a_value_goes_as_it_would_on_the_way() -> None:
    assert check_headers({"X-A": " b\t"}) == {"X-A": "b"}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_header_of_ours_or_of_the_connection_is_refused(name: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_headers({"X-Tenant": "a", name: "x"})
    assert refusal.value.param == f"headers.{name}"
    assert "any name but" in refusal.value.message


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "a\r\nb", "größe", "a\0", "x" * 101, ":authority", "(a)"])
def test_a_name_that_is_no_header_s_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="the name must have"):
        check_headers({name: "x"})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0", "\x7f", "a\tb", "\u2028", "v" * 1001, "\ud800"])
def test_a_value_that_would_not_stay_one_header_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_headers({"X-Tenant": value})
    assert refusal.value.param == "headers.X-Tenant"
    assert value not in refusal.value.message


def test_upper_and_lower_case_are_one_name() -> None:
    with pytest.raises(BadRequest, match="named twice"):
        check_headers({"X-Tenant": "a", "x-tenant": "b"})


def test_there_is_a_most() -> None:
    most = {f"X-{number}": "a" for number in range(MOST_HEADERS)}
    assert check_headers(most) == most
    with pytest.raises(BadRequest, match="at most 20"):
        check_headers({**most, "X-Y": "a"})


def test_what_is_shown_has_no_value_and_given_back_means_the_value_that_is_there() -> None:
    present = {"Authorization": "Bearer abc", "X-Tenant": "acme"}
    shown = hidden(present)
    assert shown == {"Authorization": REDACTED, "X-Tenant": REDACTED}
    assert check_headers({**shown, "X-Tenant": "other"}, present) == {**present, "X-Tenant": "other"}
    assert check_headers({"authorization": REDACTED}, present) == {"authorization": "Bearer abc"}
    with pytest.raises(BadRequest, match="there is none"):
        check_headers({"X-New": REDACTED}, present)
