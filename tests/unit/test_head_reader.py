"""The head of a response, however it arrives, and what follows it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.http_client.head_reader import MOST_HEAD_BYTES, HeadReader

INTERIM = st.sampled_from(
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nretry-after: 9\r\n\r\n",
        b"\r\n\nHTTP/1.0 102\n\n",
    ]
)
FINAL = st.sampled_from(
    [
        (b"HTTP/1.1 200 OK\r\nretry-after: 7\r\n\r\n", 200),
        (b"HTTP/1.1 101 Switching Protocols\nRetry-After:7\n\n", 101),
        (b"HTTP/2 503\r\nx: y\r\nretry-after: 7\r\n\r\n", 503),
    ]
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data`, cut at these positions."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


@given(st.lists(INTERIM, max_size=4), FINAL, st.binary(max_size=40), st.lists(st.integers(0, 400), max_size=60))
def test_the_final_response_is_found_however_it_arrives(
    interim: list[bytes], final: tuple[bytes, int], body: bytes, cuts: list[int]
) -> None:
    head, rest = HeadReader(), b""
    for piece in pieces(b"".join(interim) + final[0] + body, cuts):
        if head.ended:
            rest += piece
        else:
            head.feed(piece)
    assert (head.status, head.ended, head.is_too_long, head.retry_after) == (final[1], True, False, "7")
    assert (head.lines, head.rest + rest) == (final[0], body)


@given(st.binary(min_size=6).filter(lambda data: not data.lstrip(b"\r\n").startswith(b"HTTP/")), st.integers(1, 9))
def test_what_is_no_response_is_known_as_soon_as_it_can_be(data: bytes, size: int) -> None:
    head, given_bytes = HeadReader(), data.lstrip(b"\r\n") or b"rubbish"
    for at in range(0, len(given_bytes), size):
        head.feed(given_bytes[at : at + size])
    assert head.status is None
    assert head.is_http == b"HTTP/".startswith(given_bytes)


@pytest.mark.parametrize("part", [b"\r\n", b"HTTP/1.1 100 x\r\n\r\n", b"HTTP/1.1 100 ", b"HTTP/1.1 200 OK\r\nx: y\r\n"])
def test_what_has_no_end_is_is_too_long_soon_after_the_bound(part: bytes) -> None:
    head, size = HeadReader(), 0
    while not head.is_too_long:
        head.feed(part)
        size += len(part)
        assert size <= MOST_HEAD_BYTES + len(part)
    assert size > MOST_HEAD_BYTES
