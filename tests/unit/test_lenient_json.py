"""What providers send is read if it is JSON but for its encoding or a few characters."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.providers import MalformedUpdate
from receiver.providers.lenient_json import DEEPEST, read_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
FRAGMENTS = [
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"'", b" ", b"\n", b"\0", b"\x07", b"\x7f", b"\xef\xbb\xbf"),
    *(b"\xff\xfe", b"\xfe\xff", b"\xff", b"\xe9", b"\xc3", b"\xed\xa0\xbd", b"\xed\xb8\x80", b"\xef\xbf\xbd"),
    *(b'"a"', b'"a":', b"\\ud83d", b"\\ude00", b"\\u0000", b"\\u12", b"\\x", b"\\'", b"\\\\", b'\\"'),
    *(b"NaN", b"-Infinity", b"inf", b"1e999", b"9" * 5000, b"-", b"0", b"1.", b"true", b"nul", b"null", b"[" * 200),
    *(b"]" * 200, b'{"b":', b"[1,2", bytes.fromhex("7b00")),
]


def stored(value: Any) -> bytes:
    """Return the value as it is stored, and check that both databases store it."""
    written = orjson.dumps(value)
    assert orjson.loads(written) == value
    assert b"\\u0000" not in written
    return written


@given(value=VALUES, encoding=st.sampled_from(ENCODINGS), ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_strict_json_is_the_same_value_in_every_encoding(
    value: Any, encoding: str, ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(encoding)
    if len(body) > 3 or encoding == "utf-8":  # a digit alone has too few zeros beside it to tell UTF-32 from UTF-16
        assert read_json(body) == value


@given(body=st.binary(max_size=200) | st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=3)).map(b"".join))
def test_any_bytes_are_a_value_that_can_be_stored_or_malformed(body: bytes) -> None:
    for cut in (False, True):
        try:
            value = read_json(body, cut=cut)
        except MalformedUpdate:
            continue
        stored(value)


@given(value=VALUES, odd=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=3).map(b"".join), data=st.data())
def test_any_bytes_in_a_text_leave_the_rest_of_the_value_as_it_is(value: Any, odd: bytes, data: st.DataObject) -> None:
    odd = odd.replace(b'"', b"").replace(b"\\", b"")
    written = orjson.dumps(value)
    body = b'{"before":' + written + b',"note":"' + odd + b'","after":' + written + b"}"
    read = read_json(body, cut=True)
    assert (read["before"], read["after"]) == (value, value)
    stored(read)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":"cut \\ud83d"}', {"a": "cut \ufffd"}),
        (b'{"a":"\\udc00\\ud83d\\ude00"}', {"a": "\ufffd\U0001f600"}),
        (b'{"a\\ud83d":1}', {"a\ufffd": 1}),
        (b'{"a":"\xed\xa0\xbd"}', {"a": "\ufffd"}),
        (b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}', {"a": "\U0001f600"}),
        (b'{"a":"caf\xe9"}', {"a": "caf\ufffd"}),
        (b'{"caf\xe9":1}', {"caf\ufffd": 1}),
        (b'{"a":"\\\\ud83d", "b":NaN}', {"a": "\\ud83d", "b": None}),
    ],
)
def test_what_is_no_character_becomes_the_replacement_character(body: bytes, value: Any) -> None:
    assert read_json(body) == value


@pytest.mark.parametrize(
    "word",
    [
        *("NaN", "nan", "NAN", "-NaN", "-nan", "nan(ind)", "-nan(ind)", "nan(snan)", "1.#QNAN", "-1.#IND", "1.#SNAN"),
        *("Infinity", "-Infinity", "+Infinity", "inf", "-inf", "+Inf", "INF", "1.#INF", "-1.#INF00"),
        *("1e999", "-1e999", "1E+400", "9" * 309, "9" * 5000, "-" + "9" * 5000, "1" * 400 + ".5"),
    ],
)
def test_a_number_that_is_not_finite_is_null(word: str) -> None:
    assert read_json(f'{{"a":{word},"b":[{word} , 1]}}'.encode()) == {"a": None, "b": [None, 1]}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *(("undefined", None), ("None", None), ("nil", None), ("True", True), ("False", False)),
        *(("+5", 5), (".5", 0.5), ("-.5", -0.5), ("5.", 5.0), ("007", 7), ("-007", -7), ("00", 0), ("+1e2", 100.0)),
    ],
)
def test_a_word_or_number_of_another_language_is_what_it_means(word: str, value: Any) -> None:
    assert read_json(f'{{"a":{word},"b":[{word} , 1]}}'.encode()) == {"a": value, "b": [value, 1]}


@pytest.mark.parametrize("body", ['{"a":[1, 2,],}', '{"a":[1,2 ,\n] , }', '\xef\xbb\xbf{"a":[1,2]}'])
def test_a_comma_too_many_and_a_mark_in_letters_are_ignored(body: str) -> None:
    assert read_json(body.encode()) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551616", float(2**64)),
        (b"123456789012345678901234567890", 1.2345678901234568e29),
        (b"1" + b"0" * 308, 1e308),
        (b"1e-999", 0.0),
    ],
)
def test_a_number_beyond_64_bits_is_a_double_whether_or_not_the_rest_is_strict(number: bytes, value: float) -> None:
    assert read_json(b"[" + number + b"]") == [value]
    assert read_json(b"[" + number + b",NaN]") == [value, None]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":"x\ny\tz\x01"}', {"a": "x\ny\tz\x01"}),
        (b'{"a\n":1}', {"a\n": 1}),
        (b'{"a":"x\0y"}', {"a": "xy"}),
        (b'{"a\\u0000":"x\\u0000y"}', {"a": "xy"}),
        (b'{"a":"C:\\temp\\dir \\x41 \\u12"}', {"a": "C:\temp\\dir \\x41 \\u12"}),
        (b'{"a":"it\\\'s"}', {"a": "it's"}),
        (b'{"a":"line \\\n end"}', {"a": "line \\\n end"}),
    ],
)
def test_a_text_may_hold_raw_control_characters_and_unknown_escapes(body: bytes, value: Any) -> None:
    assert read_json(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"a":[1,2]}',
        b'\xef\xbb\xbf\xef\xbb\xbf{"a":[1,2]}',
        b' \r\n\xef\xbb\xbf\n{"a":[1,2]}',
        b'{"a":\xef\xbb\xbf[1,\xef\xbb\xbf2]}\xef\xbb\xbf',
        b'{"a":[1,2]}\0\0\0',
        b'\0{"a":\x0b[1,\xc2\xa02]}\x1a',
        b'{"a":[1,2]}\xff',
        '{"a":[1,2]}'.encode("utf-16") + b"\0",
        ' {"a":[1,2]}\r\n'.encode("utf-16-be"),
        '\ufeff\ufeff{"a":[1,2]}'.encode("utf-32-le"),
        b'{"a":0,"a":[1,2]}',
    ],
)
def test_what_stands_between_the_values_is_ignored(body: bytes) -> None:
    assert read_json(body) == {"a": [1, 2]}


def test_invalid_utf_16_is_replaced_too() -> None:
    body = '{"a":"x'.encode("utf-16-le") + b"\x3d\xd8" + 'y"}'.encode("utf-16-le")
    assert read_json(body) == {"a": "x\ufffdy"}


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b" ",
            b"\0",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\xff",
            b"<html></html>",
            b"not json",
            b"nothing",
            b"null null",
        ),
        *(
            b'{"a":1',
            b'{"a":"b',
            b'{"a":"b\\',
            b'{"a" 1}',
            b"[1 2]",
            b"[1\x002]",
            b"tr\0ue",
            b"{}{}",
            b"'a'",
            b"[1,,2]",
        ),
        *(b"\x1f\x8b\x08\x00", b"a=1&b=2", b"[" * 100_000, b'{"a":' * 100_000),
    ],
)
def test_what_is_no_json_even_so_is_malformed(body: bytes) -> None:
    for cut in (False, True):
        with pytest.raises(MalformedUpdate, match="the body is not JSON"):
            read_json(body, cut=cut)


@pytest.mark.parametrize("levels", [DEEPEST - 1, DEEPEST, 1000, 3000])
@pytest.mark.parametrize("odd", [b"", b"NaN"])
def test_what_is_too_deep_is_malformed_or_cut(levels: int, odd: bytes) -> None:
    deep = b'{"]":' * (levels // 2) + b"[" * (levels - levels // 2) + odd + b"]" * (levels - levels // 2)
    body = b'{"status":"completed","n":' + deep + b"}" * (levels // 2) + b',"after":1}'
    if levels < DEEPEST:
        assert read_json(body) == read_json(body, cut=True)
        return
    with pytest.raises(MalformedUpdate, match="nested too deeply"):
        read_json(body)
    value = read_json(body, cut=True)
    assert (value["status"], value["after"]) == ("completed", 1)
    branch, depth = value["n"], 1
    while branch is not None:
        branch = branch["]"] if isinstance(branch, dict) else branch[0]
        depth += 1
    assert depth == DEEPEST
    stored(value)


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 500_000,
        b'["' + b"\\" * 1_000_001,
        b"[" * 500_000 + b"]" * 500_000,
        b"[NaN" + b",nan(" * 150_000 + b"]",
        b'{"a":"' + b"\xed\xa0" * 400_000 + b'"}',
        b"\0" * 1_000_000,
        b"[" + b"-" * 1_000_000,
        b"[1" + b", " * 500_000 + b"]",
        b"[1," + b" " * 1_000_000 + b",]",
        b"[" + b"1" * 1_000_000 + b"e",
    ],
)
def test_no_body_makes_reading_slow(body: bytes) -> None:
    # Quadratic work on a megabyte would take an hour instead of a second or two.
    try:
        stored(read_json(body, cut=True))
    except MalformedUpdate:
        return
