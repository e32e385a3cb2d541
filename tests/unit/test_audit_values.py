"""What the audit log shows of a change: the fields that differ, and no secret."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.audit_values import key_difference, masked_url, webhook_difference
from receiver.domain.keyring import hash_api_key

ROW: dict[str, Any] = {
    "uid": "0190",
    "endpoint_url": "https://example.com/hooks",
    "is_active": True,
    "format": "standard",
    "event_types": ["task.completed"],
    "filters": None,
    "description": None,
    "secret": "encrypted-1",
    "headers": None,
    "retired_secrets": None,
}
SECRET = "planted-Vq8Zx3Km7TyW2rLc"
SECRETS = st.sampled_from([None, f"one-{SECRET}", f"two-{SECRET}"])


def test_only_the_fields_that_differ_are_shown() -> None:
    assert webhook_difference(ROW, {**ROW, "is_active": False}) == ({"is_active": True}, {"is_active": False})
    assert webhook_difference(ROW, dict(ROW)) == ({}, {})


def test_what_is_new_has_no_before_and_what_is_removed_no_after() -> None:
    before, after = webhook_difference(None, ROW)
    assert before is None
    assert after is not None
    assert after["secret"] == "set"
    assert "description" not in after
    before, after = webhook_difference(ROW, None)
    assert after is None
    assert before is not None
    assert before["endpoint_url"] == ROW["endpoint_url"]


def test_secrets_and_headers_are_only_said_to_be_set_or_changed() -> None:
    changed = {**ROW, "secret": "encrypted-2", "headers": "encrypted-3"}
    assert webhook_difference(ROW, changed) == (
        {"secret": "set", "headers": None},
        {"secret": "changed", "headers": "set"},
    )
    assert webhook_difference(changed, {**changed, "headers": None}) == ({"headers": "set"}, {"headers": None})


@given(before=SECRETS, after=SECRETS, headers_before=SECRETS, headers_after=SECRETS, place=st.integers(0, 4))
def test_no_secret_of_a_webhook_is_shown_wherever_it_stands(
    before: str | None, after: str | None, headers_before: str | None, headers_after: str | None, place: int
) -> None:
    url = (
        f"https://user:{SECRET}@example.com/hooks",
        f"https://example.com/hooks?token={SECRET}",
        f"https://example.com/hooks?{SECRET}",
        f"https://example.com/hooks/{SECRET}/in",
        f"https://example.com/hooks#{SECRET}",
    )[place]
    old = {**ROW, "secret": before, "headers": headers_before, "retired_secrets": [{"secret": before}]}
    new = {**ROW, "secret": after, "headers": headers_after, "endpoint_url": url}
    for rows in ((old, new), (None, new), (new, None), (new, old)):
        assert SECRET.encode() not in orjson.dumps(webhook_difference(*rows))


def test_a_key_is_shown_without_its_hash() -> None:
    row = {"name": "one", "scope": "read", "hint": "rb_1234", "hash": hash_api_key("k"), "sealed": "x", "rate_limit": 1}
    assert key_difference(None, row) == (
        None,
        {"name": "one", "scope": "read", "hint": "rb_1234", "rate_limit": 1},
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/hooks?a=1&b=", "https://example.com/hooks?a=***&b="),
        (
            "https://hooks.example.com/services/T02/B03/aB3dE5fG7hJ9kL1m",
            "https://hooks.example.com/services/T02/B03/***",
        ),
        ("https://example.com/webhooks/incoming-deliveries", "https://example.com/webhooks/incoming-deliveries"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("https://[broken", "***"),
    ],
)
def test_what_may_be_a_token_in_a_url_is_left_out(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_a_url_that_changed_only_where_it_is_masked_is_said_to_have_changed() -> None:
    before, after = (f"https://example.com/?token={number}" for number in (1, 2))
    was, became = webhook_difference({**ROW, "endpoint_url": before}, {**ROW, "endpoint_url": after})
    assert was == {"endpoint_url": "https://example.com/?token=***"}
    assert became == {"endpoint_url": "https://example.com/?token=*** (changed)"}


def test_a_long_value_is_shown_as_its_length() -> None:
    _, after = webhook_difference(None, {**ROW, "description": "x" * 10_000})
    assert after is not None
    assert after["description"] == "(10002 bytes)"
