"""The parts in which the parser gets what arrives: none passes the end of a request, and all arrives."""

import httptools
from hypothesis import given
from hypothesis import strategies as st

from receiver.serving.request_bounds import RequestBounds

LIMIT = 4096


class Parsed:
    """What the parser reports, and where it was when a request ended."""

    def __init__(self, bounds: RequestBounds) -> None:
        self._bounds = bounds
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._in_body = False
        self.bodies: list[bytes] = []
        self.ended = False

    def on_message_begin(self) -> None:
        assert not self.ended, "a part had the end of a request and the beginning of the next one"
        self._headers, self._body, self._in_body = [], b"", False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._bounds.body_follows(self._headers)

    def on_body(self, body: bytes) -> None:
        self._bounds.payload(len(body))
        self._body += body

    def on_message_complete(self) -> None:
        self._bounds.next_request()
        self.bodies.append(self._body)
        self.ended = True


def of_known_length(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@st.composite
def in_chunks(draw: st.DrawFn, body: bytes) -> bytes:
    chunks, left = [], body
    while left:
        size = draw(st.integers(1, len(left)))
        chunks.append(b"%x%s\r\n%s\r\n" % (size, draw(st.sampled_from([b"", b";a=b"])), left[:size]))
        left = left[size:]
    trailer = draw(st.sampled_from([b"", b"X: y\r\n"]))
    return b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


BODIES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"a", b"0"]), max_size=12).map(b"".join)
REQUESTS = BODIES.flatmap(
    lambda body: st.tuples(st.just(body), st.one_of(st.just(of_known_length(body)), in_chunks(body)))
)


@given(st.lists(REQUESTS, min_size=1, max_size=4), st.sampled_from([b"", b"\r\n", b"\r\n\r\n\r\n"]), st.data())
def test_requests_are_divided_at_their_ends_in_whatever_pieces_they_arrive(
    requests: list[tuple[bytes, bytes]], blank: bytes, data: st.DataObject
) -> None:
    stream = b"".join(blank + raw for _, raw in requests)
    bounds = RequestBounds(LIMIT)
    parsed = Parsed(bounds)
    parser = httptools.HttpRequestParser(parsed)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        piece, stream = stream[:size], stream[size:]
        while piece:
            part = bounds.next_part(piece)
            assert part
            parsed.ended = False
            parser.feed_data(part)
            piece = piece[len(part) :]
    assert parsed.bodies == [body for body, _ in requests]


@given(st.lists(st.integers(1, 3 * LIMIT), min_size=1, max_size=20))
def test_no_more_than_the_limit_is_parsed_of_what_is_not_payload(sizes: list[int]) -> None:
    bounds = RequestBounds(LIMIT)
    taken = 0
    for size in sizes:
        taken += len(bounds.next_part(b"a" * size))
    assert taken == bounds.counted == min(LIMIT, sum(sizes))


def test_the_payload_of_a_body_makes_room_for_more() -> None:
    bounds = RequestBounds(LIMIT)
    bounds.body_follows([(b"transfer-encoding", b"chunked")])
    for _ in range(100):
        assert len(bounds.next_part(b"a" * LIMIT)) == LIMIT
        assert bounds.next_part(b"a") == b""
        bounds.payload(LIMIT)
