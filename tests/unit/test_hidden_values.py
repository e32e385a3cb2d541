"""What a change of a webhook must give again, so that no other origin learns hidden values."""

from typing import Any

import pytest

from receiver.errors import BadRequest
from receiver.outbound.hidden_values import check_given_again, check_secret_given_again

PRESENT = {"Authorization": "Bearer planted", "X-Tenant": "t-1"}
ROW = {"endpoint_url": "https://app.example.com/a", "headers": "encrypted", "secret": "encrypted", "format": "standard"}
ELSEWHERE = [
    "https://app.example.com.evil.example/a",
    "http://app.example.com/a",
    "https://app.example.com:8443/a",
    "https://other.example.com/a",
    "https://app.example.com@evil.example/a",
]
SAME = [
    "https://app.example.com/b?x=1",
    "https://APP.example.com:443/a",
    "https://user:pass@app.example.com/a",
]


@pytest.mark.parametrize("url", ELSEWHERE)
@pytest.mark.parametrize("headers", [None, {"Authorization": "***", "X-Tenant": "new"}])
def test_a_new_origin_gets_no_header_value_that_was_not_given_again(url: str, headers: dict[str, str] | None) -> None:
    given: dict[str, Any] = {"endpoint_url": url} | ({"headers": headers} if headers else {})
    with pytest.raises(BadRequest, match="Authorization") as caught:
        check_given_again(ROW, PRESENT, given)
    assert (caught.value.code, caught.value.param) == ("headers_required", "headers")
    assert "planted" not in caught.value.message


@pytest.mark.parametrize("url", SAME)
def test_the_same_origin_keeps_them(url: str) -> None:
    check_given_again(ROW, PRESENT, {"endpoint_url": url})
    check_secret_given_again({**ROW, "format": "piapi"}, {"endpoint_url": url}, {"endpoint_url": url})


@pytest.mark.parametrize("headers", [None, {}, {"Authorization": "Bearer other"}])
def test_headers_that_are_given_or_removed_go_along(headers: dict[str, str] | None) -> None:
    check_given_again(ROW, PRESENT, {"endpoint_url": ELSEWHERE[0], "headers": headers})


def test_headers_that_cannot_be_read_are_not_sent_elsewhere_when_they_can_be_again() -> None:
    with pytest.raises(BadRequest) as caught:
        check_given_again(ROW, None, {"endpoint_url": ELSEWHERE[0]})
    assert caught.value.code == "headers_required"


def test_a_webhook_without_headers_may_move() -> None:
    check_given_again({**ROW, "headers": None}, {}, {"endpoint_url": ELSEWHERE[0]})


@pytest.mark.parametrize(
    ("row", "given"),
    [
        ({"format": "piapi"}, {"endpoint_url": ELSEWHERE[0]}),
        ({}, {"format": "piapi"}),
        ({}, {"format": "piapi", "endpoint_url": ELSEWHERE[0]}),
    ],
)
def test_the_secret_itself_is_not_sent_where_it_was_not(row: dict[str, Any], given: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        check_secret_given_again({**ROW, **row}, given, given)
    assert caught.value.code == "secret_required"
    check_secret_given_again({**ROW, **row}, given, {**given, "secret": "another"})


@pytest.mark.parametrize("form", ["standard", "pi", "cloudevents"])
def test_signatures_may_go_to_another_origin(form: str) -> None:
    check_secret_given_again({**ROW, "format": form}, {"endpoint_url": ELSEWHERE[0]}, {"endpoint_url": ELSEWHERE[0]})
