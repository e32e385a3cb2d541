"""Parsing Server-Sent Events as the standard defines them, wherever the stream is cut into chunks."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from receiver.cli.following import parse
from receiver.domain.server_sent import comment, event_frame, retry_hint

STREAM = (
    retry_hint(2000)
    + comment("a fresh\nstart", "6")
    + event_frame("7", "task.completed", {"prompt": "two\u2028lines\r\n\x85 and \U0001f408"})
    + comment("keep-alive")
)
BLOCKS = [
    {"retry": "2000"},
    {"id": "6"},
    {"id": "7", "event": "task.completed", "data": '{"prompt":"two\u2028lines\\r\\n\x85 and \U0001f408"}'},
    {},
]


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_the_chunks_of_a_stream_do_not_matter(cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), len(STREAM)]
    assert list(parse(STREAM[start:end] for start, end in pairwise(bounds))) == BLOCKS


def test_lines_may_end_with_crlf_and_data_may_have_several_lines() -> None:
    assert list(parse([b"id: 1\r\ndata: a\r\ndata:b\r\n", b"\r\n"])) == [{"id": "1", "data": "a\nb"}]


def test_an_incomplete_block_is_not_an_event() -> None:
    assert list(parse([b"id: 1\ndata: whole\n\nid: 2\ndata: ha"])) == [{"id": "1", "data": "whole"}]
