"""A response whose body is taken as it arrives: whether it was read to its end, and what its headers are."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.http_client.response_reader import MOST_BYTES_BESIDE_BODY
from receiver.http_client.streamed_reader import StreamedReader

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

WHOLE = {
    "a length": (OK + b"content-length: 2\r\n\r\nab", b"ab"),
    "a long body": (OK + b"content-length: 900000\r\n\r\n" + b"a" * 900_000, b"a" * 900_000),
    "chunks": (CHUNKED + b"1\r\na\r\n1;x=y\r\nb\r\n0\r\nx: y\r\nz: y\r\n\r\n", b"ab"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "no content with a length": (b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n", b""),
    "not modified, with the length of what is not sent": (b"HTTP/1.1 304 OK\r\ncontent-length: 9\r\n\r\n", b""),
    "interim responses": (b"HTTP/1.1 103 Hints\r\nlink: </>\r\n\r\n" + OK + b"content-length: 2\r\n\r\nab", b"ab"),
    "a line that is folded": (OK + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\nab", b"ab"),
}
"""Responses that say where they end, with their bodies."""

TO_THE_END = {
    "no length": (OK + b"\r\nab", b"ab"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nab", b"ab"),
    "another encoding": (OK + b"transfer-encoding: magic\r\n\r\nab", b"ab"),
}
"""Responses that end with their connection."""

CUT = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 200",
    "half a head": OK + b"content-length: 0\r\n",
    "a body shorter than its length": OK + b"content-length: 3\r\n\r\nab",
    "a length that is nearly none": OK + b"content-length : 3\r\n\r\nab",
    "half a chunk": CHUNKED + b"5\r\nab",
    "chunks without the last": CHUNKED + b"2\r\nab\r\n",
    "half a trailer": CHUNKED + b"2\r\nab\r\n0\r\nx: ",
    "chunks that are encoded once more": OK + b"transfer-encoding: chunked, gzip\r\n\r\nab",
    "what is no chunk": CHUNKED + b"2\r\nab\r\nzz\r\n",
    "two lengths": OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a line without a colon": OK + b"rubbish\r\n\r\nab",
    "no HTTP": b"220 ready\r\n\r\n",
}


def fed(*parts: bytes, expects_body: bool = True) -> StreamedReader:
    reader = StreamedReader()
    reader.expects_body = expects_body
    reader.begin()
    for part in parts:
        reader.feed(part)
    return reader


@st.composite
def cut(draw: st.DrawFn, text: bytes) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(1, len(text) - 1), max_size=12)))
    return [text[begin:end] for begin, end in pairwise([0, *places, len(text)])]


@given(st.data(), st.sampled_from(sorted(WHOLE)))
def test_a_response_that_has_an_end_is_whole_however_its_bytes_are_cut(data: st.DataObject, name: str) -> None:
    text, body = WHOLE[name]
    reader = StreamedReader()
    for _ in range(2):
        reader.begin()
        taken = b""
        for part in data.draw(cut(text)):
            reader.feed(part)
            taken += reader.take()
        assert reader.has_head
        assert reader.is_over
        assert reader.is_whole
        assert taken == body
        if not reader.is_reusable:
            return


@pytest.mark.parametrize(("text", "body"), TO_THE_END.values(), ids=TO_THE_END.keys())
def test_a_response_that_ends_with_its_connection_is_whole_only_if_that_was_closed(text: bytes, body: bytes) -> None:
    for error in (None, ConnectionResetError()):
        reader = fed(text)
        assert not reader.is_over
        assert not reader.is_whole
        reader.end(error)
        assert reader.is_over
        assert reader.is_whole == (error is None)
        assert not reader.is_reusable
        assert reader.take() == body


@pytest.mark.parametrize("text", CUT.values(), ids=CUT.keys())
def test_a_response_that_is_cut_or_broken_is_never_whole(text: bytes) -> None:
    for size in (1, 3, len(text) or 1):
        reader = fed(*(text[begin : begin + size] for begin in range(0, len(text), size)))
        assert not reader.is_whole
        reader.end(None)
        assert not reader.is_whole
        assert not reader.is_reusable
        assert reader.was_closed_unanswered == (text == b"")


@pytest.mark.parametrize("head", [b"content-length: 2\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n", b"\r\n"])
def test_a_response_to_head_has_no_body_whatever_it_says(head: bytes) -> None:
    reader = fed(OK + head, expects_body=False)
    assert (reader.is_over, reader.is_whole, reader.take()) == (True, True, b"")
    assert reader.headers == [tuple(line.split(b": ")) for line in head.split(b"\r\n") if line]


def test_a_connection_is_not_used_again_after_more_than_the_response_to_head() -> None:
    empty = OK + b"content-length: 0\r\n\r\n"
    assert fed(empty, expects_body=False).is_reusable
    for parts in ((empty + b"x",), (empty, b"x")):
        reader = fed(*parts, expects_body=False)
        assert (reader.is_whole, reader.is_reusable) == (True, False)


def test_headers_are_kept_as_they_came_and_trailers_are_not() -> None:
    reader = fed(
        OK + b"Set-Cookie: a=1\r\nset-cookie: b=\xe9\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\nz: y\r\n\r\n"
    )
    assert reader.is_complete
    assert reader.headers == [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=\xe9"), (b"transfer-encoding", b"chunked")]


def test_headers_of_a_head_that_is_read_once_more_are_there_once() -> None:
    reader = fed(OK + b"a: 1\r\nx: y\r\n z\r\ncontent-length: 0\r\n\r\n")
    assert [name for name, _ in reader.headers] == [b"a", b"x", b"content-length"]
    reader.begin()
    assert reader.headers == []


def test_what_stands_beside_the_body_is_bounded_and_the_body_is_not() -> None:
    extension = b"1;" + b"x" * 60_000
    reader = fed(CHUNKED)
    for _ in range(20):
        reader.feed(extension)
        reader.feed(b"\r\na\r\n")
        assert not reader.is_over
    assert reader.take() == b"a" * 20
    for _ in range(MOST_BYTES_BESIDE_BODY // 60_000 + 1):
        reader.feed(extension)
        extension = b"x" * 60_000
    assert reader.is_over
    assert not reader.is_whole


def test_bytes_after_the_end_change_nothing_of_the_response_and_end_the_connection() -> None:
    for more in (b"x", OK + b"content-length: 1\r\nx: y\r\n\r\nz"):
        for parts in ([OK + b"content-length: 2\r\n\r\nab" + more], [OK + b"content-length: 2\r\n\r\nab", more]):
            reader = fed(*parts)
            assert (reader.is_whole, reader.is_reusable, reader.take()) == (True, False, b"ab")
            assert len(reader.headers) == 1
