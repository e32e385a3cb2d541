"""A secret is redacted where it is one, and not where the same characters are a part of something else."""

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.redaction import may_hold, redact_text, redact_value

SHORT = "123456"
WORD = "planted-key-0123456789"
LONG = "Zq7" * 14 + "x"


def test_a_short_secret_is_redacted_where_it_is_a_whole_text_or_name() -> None:
    value = {"a": SHORT, SHORT: [SHORT, {"b": SHORT}]}
    assert redact_value(value, [SHORT]) == {"a": "***", "***": ["***", {"b": "***"}]}


@pytest.mark.parametrize(
    "value", ["ab-123456-cd", "https://x.example/123456/v.mp4", 1234567, 123456, "call 123456 now", {"task_id": SHORT}]
)
def test_the_characters_of_a_short_secret_stay_where_they_mean_something_else(value: Any) -> None:
    assert redact_value(value, [SHORT]) == value


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"no such key: {WORD}, sorry.", "no such key: ***, sorry."),
        (f"the key is {WORD}.", "the key is ***."),
        (f"?key={WORD}&x=1", "?key=***&x=1"),
        (f"https://{WORD}.example.com/", f"https://{WORD}.example.com/"),
        (f"/files/{WORD}/a.png", f"/files/{WORD}/a.png"),
        (f"id-{WORD}", f"id-{WORD}"),
    ],
)
def test_a_longer_secret_is_redacted_as_a_word_too(text: str, redacted: str) -> None:
    assert redact_value(text, [WORD]) == redacted


def test_a_secret_as_long_as_ringbacks_own_is_redacted_anywhere() -> None:
    value = {f"x{LONG}y": f"https://h.example/{LONG}/{LONG}"}
    assert redact_value(value, [LONG]) == {"x***y": "https://h.example/***/***"}


@pytest.mark.parametrize("secret", ["", "a", "abcde"])
def test_what_is_too_short_to_be_a_secret_is_redacted_nowhere(secret: str) -> None:
    value = {"a": secret, secret: ["abcde", ""]}
    assert redact_value(value, [secret]) == value
    assert redact_text(f'"{secret}"', secret) == f'"{secret}"'
    assert not may_hold(orjson.dumps(value), secret)


@pytest.mark.parametrize("secret", [SHORT, WORD, LONG, 'se"cr\\et', "gar/den-garden", "schlüssel", "密钥密钥密钥"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_that_holds_a_secret_is_never_taken_for_one_that_does_not(
    secret: str, encoding: str, ascii_only: bool
) -> None:
    written = json.dumps({"a": secret}, ensure_ascii=ascii_only)
    for body in (written, written.replace("/", "\\/"), written.replace(secret[1], f"\\u{ord(secret[1]):04x}")):
        assert may_hold(body.encode(encoding), secret)


def test_json_that_holds_no_secret_need_not_be_searched() -> None:
    assert not may_hold(b'{"a": "b", "c": ["1234567890"]}', LONG)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('{"a": "123456", "id": "ab-123456-cd", "n": 1234567', '{"a": "***", "id": "ab-123456-cd", "n": 1234567'),
        ("{'a': '123456'", "{'a': '***'"),
        ('"{\\"a\\": \\"123456\\"', '"{\\"a\\": \\"***\\"'),
        ("https://x.example/123456/v.mp4", "https://x.example/123456/v.mp4"),
    ],
)
def test_a_short_secret_is_redacted_in_the_text_of_a_malformed_body_where_it_stands_in_quotes(
    text: str, redacted: str
) -> None:
    assert redact_text(text, SHORT) == redacted


@pytest.mark.parametrize("secret", [LONG, 'a"b\\c/' * 6, "ü" * 40])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_secret_is_redacted_anywhere_in_a_malformed_body_as_any_library_writes_it(
    secret: str, ascii_only: bool
) -> None:
    for written in (secret, json.dumps(secret, ensure_ascii=ascii_only), json.dumps(secret).replace("/", "\\/")):
        assert "***" in redact_text(f"<p>{written}", secret)
        assert written.strip('"') not in redact_text(f"<p>{written}", secret)


WORD_ALONE = r"(?<![\w/.-])%s(?![\w/-]|\.\w)"


@given(
    parts=st.lists(
        st.sampled_from(["ab ab", "ab ", "x", ".", " ", "-", "ab ab ab ab ab ab", "1212121212121212", "12"])
    ),
    secret=st.sampled_from(["ab ab ab ab ab ab", "1212121212121212"]),
)
def test_a_secret_that_is_a_word_is_redacted_wherever_nothing_joins_it(parts: list[str], secret: str) -> None:
    text = "".join(parts)
    expected = text and re.sub(WORD_ALONE % re.escape(secret), "***", text)
    assert redact_value(text, [secret]) == expected


@given(text=st.text(alphabet='123456x"/- '), secret=st.sampled_from([SHORT, "123456" * 3, "123456" * 6]))
def test_redacting_twice_is_the_same_as_once(text: str, secret: str) -> None:
    once = redact_value({text: text}, [secret])
    assert redact_value(once, [secret]) == once
