"""The `Retry-After` header: one parser for providers and subscribers."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.retry_after import retry_after_seconds

NOW = datetime(2025, 3, 2, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("-5", None),
        ("٣", None),
        ("0", 0),
        ("7", 7),
        (" 1.5 ", 1.5),
        ("999999", 3600),
        ("9" * 5000, 3600),
        ("Sun, 02 Mar 2025 10:00:30 GMT", 30),
        ("Sun, 02 Mar 2025 09:00:00 GMT", 0),
        ("Sun, 02 Mar 2025 12:00:30 +0200", 30),
        ("Fri, 02 Mar 2035 10:00:00 GMT", 3600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Fri, 31 Dec 99999999999 23:59:59 GMT", None),
        ("Sun, 02 Mar 2025 10:00:30 -0000", 30),
        ("Sun, 99 Mar 2025 10:00:30 GMT", None),
    ],
)
def test_it_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW, longest=3600) == seconds


@given(st.text() | st.from_regex(r"\A(Wed, )?\d* [A-Z][a-z]* [-0-9:]* [-0-9:]* ?[-+A-Z0-9]*\Z"))
def test_no_value_makes_it_fail_or_exceed_the_bound(value: str) -> None:
    seconds = retry_after_seconds(value, NOW, longest=86400)
    assert seconds is None or 0 <= seconds <= 86400
