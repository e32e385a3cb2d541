"""The secret that PiAPI echoes is removed when a body is read, whatever the body looks like."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.providers.piapi import PiAPI
from receiver.providers.piapi.bodies import read_body, redact_secrets
from receiver.providers.rate_limiter import RateLimiter

PLANTED = "Zq7-planted.Zq7"
PIAPI = PiAPI(base_url="http://127.0.0.1:9", api_key=None, timeout=1, rate_limiter=RateLimiter(1))
CONFIG = {"endpoint": "https://r.example.com/h", "secret": PLANTED}


def test_the_endpoint_is_kept_and_the_secret_removed() -> None:
    value = read_body(orjson.dumps({"config": {"service_mode": "public", "webhook_config": CONFIG}}))
    assert value == {"config": {"service_mode": "public", "webhook_config": {"endpoint": CONFIG["endpoint"]}}}


@pytest.mark.parametrize(
    "body",
    [
        {"webhook_config": CONFIG},
        {"webhookConfig": CONFIG},
        {"WebhookConfig": {"Endpoint": CONFIG["endpoint"], "Secret": PLANTED}},
        {"a": [{"b": {"webhook_config": {"more": [{"secret": PLANTED}]}}}]},
        {"webhook_config": [CONFIG]},
        {"webhook_config": {"Secret": PLANTED}},
        {"input": orjson.dumps({"webhook_config": CONFIG}).decode()},
        {"input": orjson.dumps([orjson.dumps({"webhook_config": CONFIG}).decode()]).decode()},
        {"webhook_config": orjson.dumps(CONFIG).decode()},
        {"message": f"bad task WebhookConfig:{{Endpoint:https://r.example.com Secret:{PLANTED}}}"},
        {"webhook\0_config": CONFIG},
        [orjson.dumps({"webhook_config": CONFIG}).decode()],
        orjson.dumps({"webhook_config": CONFIG}).decode(),
    ],
)
def test_the_secret_is_found_wherever_it_is(body: Any) -> None:
    raw = orjson.dumps(body)
    assert PLANTED in raw.decode()
    assert PLANTED not in repr(read_body(raw))
    assert PLANTED not in PIAPI.redact(raw)


def test_an_object_that_is_quoted_as_a_text_is_read_without_its_secrets() -> None:
    body = orjson.dumps(orjson.dumps({"data": {"task_id": "x", "config": {"webhook_config": CONFIG}}}).decode())
    value = read_body(body, (CONFIG["endpoint"],))
    assert value["data"]["task_id"] == "x"
    assert PLANTED not in repr(value)
    assert CONFIG["endpoint"] not in repr(value)


def test_a_clients_own_texts_are_not_changed() -> None:
    body = {"input": {"prompt": "the secret: a garden", "secret": "mine"}}
    assert read_body(orjson.dumps(body)) == body


def test_redacting_valid_json_returns_json() -> None:
    assert PIAPI.redact(b'{"webhook_config": {"secret": "x", "endpoint": "y"}, "n": "a\\u0000b"}') == (
        '{"webhook_config":{"endpoint":"y"},"n":"ab"}'
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [{"secret": "%s"}], "x-webhook-secret": "%s"}',
        b'{"a": "secret=%s"}',
        b'{"webhook_config": {"secret": "%s"}',
        b'{"secret": "%s',
        b"{'secret': '%s'}",
        b'{"secret":"a\\"%s"',
        b'{\\"secret\\": \\"%s\\"',
        b'{\\\\\\"secret\\\\\\": \\\\\\"a\\\\\\\\\\\\\\"%s\\\\\\"',
        b"x-webhook-secret: %s\r\n",
        b"secret=%s&x=1",
        b"secret: ***%s\r\n",
        b'\xff\xfe{"secret": "%s"}',
        b'{"SECRET" : \n "%s", "n": NaN}',
        b"[" * 300 + b'{"webhook_config": {"secret": "%s"}}' + b"]" * 300,
    ],
)
def test_a_body_that_is_kept_as_text_is_redacted_wherever_a_secret_is_named(body: bytes) -> None:
    raw = body.replace(b"%s", PLANTED.encode())
    assert "Zq7" not in PIAPI.redact(raw)


def test_a_body_in_another_encoding_is_redacted() -> None:
    assert "Zq7" not in PIAPI.redact(f'{{"secret": "{PLANTED}"}}'.encode("utf-16"))


def test_redacted_text_has_no_nuls() -> None:
    assert PIAPI.redact(b"a\0b") == "ab"


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_body_truncated_anywhere_reveals_no_part_of_the_secret(cut: int) -> None:
    task = {
        "task_id": "a",
        "input": orjson.dumps({"webhook_config": CONFIG}).decode(),
        "config": {"webhook_config": CONFIG},
    }
    assert "Zq7" not in PIAPI.redact(orjson.dumps({"timestamp": 1, "data": task})[:cut])


@given(text=st.text(alphabet="secret\"\\': =x\n{}*", max_size=200))
def test_redacting_twice_is_the_same_as_once(text: str) -> None:
    once = redact_secrets(text)
    assert redact_secrets(once) == once


@pytest.mark.parametrize("piece", ["secret", 'secret"', "secret:", '"secret":', "\\", 'secret\\"', 'secret:\\"', " "])
def test_no_body_makes_redaction_slow(piece: str) -> None:
    # Quadratic work on this much text would take minutes instead of milliseconds.
    redact_secrets("secret" + piece * 100_000)
