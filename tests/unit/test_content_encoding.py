"""Packed bodies are unpacked, in every form that senders use, and never to more than the bound."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.domain.content_encoding import EncodingBroken, EncodingUnknown, content_encodings, is_packed, unpack
from receiver.errors import TooLarge

BODY = b'{"data": {"task_id": "a", "status": "completed"}}' * 20
LIMIT = 1 << 20


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def packed(body: bytes, encodings: tuple[str, ...]) -> bytes:
    for name in encodings:
        body = gzip.compress(body) if "gzip" in name else zlib.compress(body)
    return body


@pytest.mark.parametrize(
    ("header", "encodings"),
    [
        ("", ()),
        ("identity", ()),
        ("UTF-8", ()),
        ("gzip", ("gzip",)),
        (" GZip ", ("gzip",)),
        ("X-GZIP", ("x-gzip",)),
        ("Deflate", ("deflate",)),
        ("gzip, identity,,deflate", ("gzip", "deflate")),
        ("gzip,gzip,gzip", ("gzip", "gzip", "gzip")),
    ],
)
def test_a_header_names_the_encodings_in_their_order(header: str, encodings: tuple[str, ...]) -> None:
    assert content_encodings(header) == encodings
    assert unpack(packed(BODY, encodings), encodings, LIMIT) == BODY


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, br", "compress", "x" * 5000, "gzip;q=1", "gzip," * 4])
def test_another_encoding_is_unknown(header: str) -> None:
    with pytest.raises(EncodingUnknown) as caught:
        content_encodings(header)
    assert "gzip" in caught.value.message or "at most 3" in caught.value.message
    assert len(caught.value.message) < 150


def test_deflate_may_have_a_zlib_header_or_none() -> None:
    for level in range(10):
        assert unpack(zlib.compress(BODY, level), ["deflate"], LIMIT) == BODY
    assert unpack(raw_deflate(BODY), ["deflate"], LIMIT) == BODY


def test_a_gzip_body_may_have_members_and_padding() -> None:
    assert unpack(gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]) + b"\0" * 512, ["gzip"], LIMIT) == BODY
    with pytest.raises(EncodingBroken):
        unpack(gzip.compress(b"") * 100_000, ["gzip"], LIMIT)


@given(body=st.binary(max_size=20_000), name=st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_unpacked_to_themselves_up_to_the_bound(body: bytes, name: str) -> None:
    assert unpack(packed(body, (name,)), [name], len(body)) == body
    if body:
        with pytest.raises(TooLarge):
            unpack(packed(body, (name,)), [name], len(body) - 1)


@given(body=st.binary(), name=st.sampled_from(["gzip", "deflate"]), limit=st.integers(0, 2000))
@example(body=b'{"', name="gzip", limit=1)
def test_any_bytes_are_unpacked_or_broken_or_too_large(body: bytes, name: str, limit: int) -> None:
    try:
        unpacked = unpack(body, [name], limit)
    except (EncodingBroken, TooLarge):
        return
    assert len(unpacked) <= limit if is_packed(body, [name]) else unpacked == body


@pytest.mark.parametrize("encodings", [("gzip",), ("deflate",), ("gzip", "gzip"), ("deflate", "gzip")])
def test_a_body_that_unpacks_to_far_too_much_takes_no_more_memory_than_the_bound(encodings: tuple[str, ...]) -> None:
    body = packed(bytes(64 << 20), encodings)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            unpack(body, encodings, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_body_that_is_cut_off_is_broken_and_keeps_what_was_unpacked(name: str) -> None:
    body = packed(BODY, (name,))
    for cut in range(1, len(body)):
        with pytest.raises(EncodingBroken, match="cut off") as caught:
            unpack(body[:cut], [name], LIMIT)
        assert BODY.startswith(caught.value.unpacked)


@pytest.mark.parametrize(
    "body",
    [b"<html>" + BODY, b"\x1f\x8b\xff" + BODY, gzip.compress(BODY)[:-8] + b"\0" * 8],
    ids=["a-page", "another-method", "wrong-check-sum"],
)
def test_a_body_that_is_not_in_its_encoding_is_broken(body: bytes) -> None:
    with pytest.raises(EncodingBroken, match="not in the content encoding gzip"):
        unpack(body, ["gzip"], LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_json_that_is_not_packed_though_its_header_says_so_is_itself(encoding: str, charset: str) -> None:
    body = BODY.decode().encode(charset)
    assert unpack(body, [encoding], LIMIT) == body
    assert unpack(gzip.compress(body), [encoding, "gzip"], LIMIT) == body


def test_a_gzip_body_is_unpacked_though_no_encoding_is_named() -> None:
    assert unpack(gzip.compress(BODY), (), LIMIT) == BODY
    assert unpack(BODY, (), 1) == BODY
