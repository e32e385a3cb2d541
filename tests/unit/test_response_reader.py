"""What a response is, where it ends, and when its connection may be used again, however its bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.http_client.head_reader import MOST_HEAD_BYTES
from receiver.http_client.response_reader import MOST_BYTES_BESIDE_BODY, ResponseReader

KEPT = 16
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

WHOLE = {
    "a length": (OK + b"content-length: 2\r\n\r\nab", b"ab"),
    "a length of nothing": (OK + b"content-length: 0\r\n\r\n", b""),
    "a body longer than what is kept": (OK + b"content-length: 40\r\n\r\n" + b"a" * 40, b"a" * KEPT),
    "chunks": (CHUNKED + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n", b"ab"),
    "chunks with extensions and trailers": (CHUNKED + b"2;x=y\r\nab\r\n0\r\nx: y\r\n\r\n", b"ab"),
    "a chunk size with blanks": (CHUNKED + b"2  \r\nab\r\n0\r\n\r\n", b"ab"),
    "chunks of another encoding": (OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", b""),
    "interim responses": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\nab", b"ab"),
    "HTTP/1.0 that is kept": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nab", b"ab"),
    "an offer to upgrade": (OK + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nab", b"ab"),
}
"""Responses that end where they say, with what is kept of their bodies."""

LAST = {
    "connection: close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nab", b"ab"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", b"ab"),
    "no length": (OK + b"\r\nab", b"ab"),
    "another encoding after chunks": (OK + b"transfer-encoding: chunked, gzip\r\n\r\n2\r\nab", b"2\r\nab"),
    "an unknown encoding": (OK + b"transfer-encoding: magic\r\n\r\nab", b"ab"),
    "a length and chunks": (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b""),
    "chunks and a length": (OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nab\r\n0\r\n\r\n", b""),
    "two lengths": (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc", b""),
    "one length twice": (OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab", b""),
    "lengths in one header": (OK + b"content-length: 2, 2\r\n\r\nab", b""),
    "a length with a sign": (OK + b"content-length: +2\r\n\r\nab", b""),
    "a length in hexadecimal": (OK + b"content-length: 0x2\r\n\r\nab", b""),
    "a negative length": (OK + b"content-length: -1\r\n\r\nab", b""),
    "a length beyond any integer": (OK + b"content-length: 99999999999999999999\r\n\r\nab", b""),
    "a name with a blank before its colon": (OK + b"content-length : 2\r\n\r\nab", b"ab"),
    "a line without a colon": (OK + b"rubbish\r\ncontent-length: 2\r\n\r\nab", b""),
    "a folded line": (OK + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\nab", b"ab"),
    "control characters in a value": (OK + b"x: a\x01b\r\ncontent-length: 2\r\n\r\nab", b"ab"),
    "line feeds alone": (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nab", b"ab"),
    "a version that does not exist": (b"HTTP/2 200\r\ncontent-length: 2\r\n\r\nab", b""),
    "a chunk size that is no number": (CHUNKED + b"2\r\nab\r\nzz\r\n", b"ab"),
    "a negative chunk size": (CHUNKED + b"2\r\nab\r\n-1\r\n", b"ab"),
    "a chunk size with a prefix": (CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", b""),
    "a chunk size beyond any integer": (CHUNKED + b"2\r\nab\r\nfffffffffffffffff\r\n", b"ab"),
    "a chunk longer than its size": (CHUNKED + b"1\r\nabc\r\n0\r\n\r\n", b"a"),
    "a chunk without its line end": (CHUNKED + b"2\r\nab0\r\n\r\n", b"ab"),
    "a body that is cut": (OK + b"content-length: 9\r\n\r\nab", b"ab"),
    "chunks without an end": (CHUNKED + b"2\r\nab\r\n", b"ab"),
    "more than its length": (OK + b"content-length: 2\r\n\r\nabc", b"ab"),
    "more after the last chunk": (CHUNKED + b"2\r\nab\r\n0\r\n\r\nx", b"ab"),
    "another response": (2 * (OK + b"content-length: 2\r\n\r\nab"), b"ab"),
    "another response after chunks": (CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + OK, b"ab"),
    "the beginning of another response": (OK + b"content-length: 2\r\n\r\nabH", b"ab"),
    "no content with a body": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nab", b""),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nab", b""),
}
"""Responses after which nothing that arrives on their connection can be trusted, or nothing arrives."""


def read(*parts: bytes, ends: bool = True) -> ResponseReader:
    reader = ResponseReader(KEPT)
    for part in parts:
        reader.feed(part)
    if ends:
        reader.end(None)
    return reader


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data`, cut at these positions."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places) if begin < end]


def verdict(reader: ResponseReader) -> tuple[object, ...]:
    head = reader.head
    return reader.status, reader.is_judged, reader.is_over, reader.is_http, head.retry_after, bytes(reader.body)


@pytest.mark.parametrize(("response", "body"), WHOLE.values(), ids=WHOLE.keys())
@given(cuts=st.lists(st.integers(0, 200), max_size=20))
def test_a_response_that_ends_where_it_says_leaves_its_connection_for_another(
    response: bytes, body: bytes, cuts: list[int]
) -> None:
    reader = ResponseReader(KEPT)
    for _ in range(3):
        reader.begin()
        for piece in pieces(response, cuts if len(body) < KEPT else []):
            assert not reader.is_over
            reader.feed(piece)
        assert (reader.is_over, reader.is_complete, reader.is_reusable) == (True, True, True)
        assert bytes(reader.body) == body


@pytest.mark.parametrize(("response", "body"), LAST.values(), ids=LAST.keys())
@given(cuts=st.lists(st.integers(0, 200), max_size=20))
def test_after_any_other_response_the_connection_is_not_used_again(
    response: bytes, body: bytes, cuts: list[int]
) -> None:
    reader = read(*pieces(response, cuts), ends=False)
    assert (reader.is_judged, reader.is_reusable) == (True, False)
    assert bytes(reader.body) == body
    reader.end(None)
    assert (reader.is_over, reader.is_reusable) == (True, False)


PARTS = st.one_of(
    st.sampled_from(
        [
            *(part + b"\r\n" for response, _ in [*WHOLE.values(), *LAST.values()] for part in response.split(b"\r\n")),
            *(response for response, _ in [*WHOLE.values(), *LAST.values()]),
            b"retry-after: 7\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"HTTP/",
        ]
    ),
    st.binary(max_size=8),
)


@example([b"content-length: 2\r\n", b"retry-after: 7\r\n"], [1])
@example([b"HTTP/1.1 100 Continue\r\nretry-after: 7\r\n"], [])
@given(st.lists(PARTS, max_size=12), st.lists(st.integers(0, 2000), max_size=40))
def test_the_result_is_the_same_however_the_bytes_arrive(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    assert verdict(read(*pieces(data, cuts))) == verdict(read(*pieces(data, [])))


@given(st.lists(PARTS, max_size=12), st.lists(st.integers(0, 2000), max_size=40))
def test_only_a_response_that_was_read_to_its_end_leaves_its_connection(parts: list[bytes], cuts: list[int]) -> None:
    reader = read(*pieces(b"".join(parts), cuts), ends=False)
    assert not reader.is_reusable or (reader.is_complete and reader.is_over and reader.is_judged and reader.is_http)


@pytest.mark.parametrize("more", [b"x", b"\r\n", OK])
def test_what_arrives_after_the_end_ends_the_use_of_the_connection(more: bytes) -> None:
    reader = read(OK + b"content-length: 2\r\n\r\nab", ends=False)
    assert reader.is_reusable
    reader.feed(more)
    assert (reader.is_reusable, reader.is_complete, bytes(reader.body)) == (False, True, b"ab")


def test_a_closed_connection_is_not_reusable_though_its_response_was_whole() -> None:
    assert not read(OK + b"content-length: 2\r\n\r\nab").is_reusable


def test_of_a_long_body_no_more_is_read_than_is_kept() -> None:
    reader = read(OK + b"content-length: 1000\r\n\r\n" + b"a" * KEPT, ends=False)
    assert (reader.is_over, reader.is_complete, reader.is_reusable) == (True, False, False)


@pytest.mark.parametrize("part", [b";" + b"x" * 999, b"1;" + b"x" * 999 + b"\r\ny\r\n0"])
def test_what_stands_beside_a_body_has_a_bound(part: bytes) -> None:
    reader, size = read(CHUNKED + b"1", ends=False), 0
    while not reader.is_over:
        reader.feed(part)
        size += len(part)
    assert size <= MOST_BYTES_BESIDE_BODY + len(part)
    assert (reader.status, reader.is_judged, reader.is_reusable) == (200, True, False)


def test_a_head_of_the_longest_length_is_read_and_a_longer_one_is_not() -> None:
    for size, ended in ((MOST_HEAD_BYTES, True), (MOST_HEAD_BYTES + 1, False)):
        head = OK + b"content-length: 0\r\nx: "
        reader = read(head + b"y" * (size - len(head) - 4) + b"\r\n\r\n", ends=False)
        assert (reader.head.ended, reader.is_reusable, reader.status, reader.is_judged) == (ended, ended, 200, True)
