"""Texts with byte order marks become UTF-8 without one; all others stay what they are."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.byte_order_marks import MOST_MARK_BYTES, encoding_of, without_mark

WIDE = [
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
]


@given(st.text().filter(lambda text: "\x00" not in text and not text.startswith("\ufeff")), st.sampled_from(WIDE))
def test_a_text_is_the_same_in_every_encoding_with_a_mark(text: str, wide: tuple[bytes, str]) -> None:
    mark, encoding = wide
    written = mark + text.encode(encoding)
    assert encoding_of(written[:MOST_MARK_BYTES]) == encoding
    assert without_mark(written) == text.encode()


@given(st.binary().filter(lambda data: data[:1] not in (b"\xef", b"\xff", b"\xfe", b"\x00")))
def test_what_has_no_mark_stays_as_it_is(data: bytes) -> None:
    assert without_mark(data) == data


@pytest.mark.parametrize("broken", [b"\xff\xfe{", b"\xff\xfe\x00\xd8", b"\xfe\xff\xdc\x00"])
def test_what_is_not_what_its_mark_says_stays_as_it_is(broken: bytes) -> None:
    assert without_mark(broken) == broken
