"""The head of a response is sent with the first part of its body."""

import asyncio
from typing import cast

import pytest

from receiver.serving.joined_head import JoinedHead

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
STREAMED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Transport:
    """Notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def abort(self) -> None:
        self.done.append("aborted")

    def is_closing(self) -> bool:
        return "closed" in self.done


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([HEAD, b"body"], [HEAD + b"body"]),
        ([HEAD, b"bo", b"dy"], [HEAD + b"bo", b"dy"]),
        ([HEAD, b""], [HEAD]),
        ([CONTINUE, HEAD, b"body"], [CONTINUE, HEAD + b"body"]),
        ([STREAMED], [STREAMED]),
        ([STREAMED, HEAD, b"body"], [STREAMED, HEAD, b"body"]),  # what looks like a head is a part of a body
        ([HEAD, HEAD, b"body"], [HEAD + HEAD, b"body"]),
        ([HEAD, b"x" * 65_537], [HEAD, b"x" * 65_537]),  # not copied
    ],
)
def test_a_head_is_sent_with_the_first_part_of_a_body_whose_length_is_known(
    written: list[bytes], sent: list[bytes]
) -> None:
    transport = _Transport()
    joined = JoinedHead(cast("asyncio.Transport", transport))
    for part in written:
        joined.write(part)
    assert transport.done == sent


def test_a_response_that_breaks_off_before_its_body_is_sent_so_far() -> None:
    transport = _Transport()
    joined = JoinedHead(cast("asyncio.Transport", transport))
    joined.write(HEAD)
    joined.close()
    assert transport.done == [HEAD, "closed"]
    assert joined.is_closing()


def test_an_abort_sends_nothing() -> None:
    transport = _Transport()
    joined = JoinedHead(cast("asyncio.Transport", transport))
    joined.write(HEAD)
    joined.abort()
    assert transport.done == ["aborted"]


@pytest.mark.parametrize(("written", "sent"), [([], []), ([HEAD], [HEAD]), ([STREAMED, b"x"], [STREAMED, b"x"])])
def test_a_response_that_goes_on_for_long_gets_the_transport_itself(written: list[bytes], sent: list[bytes]) -> None:
    transport = _Transport()
    joined = JoinedHead(cast("asyncio.Transport", transport))
    for part in written:
        joined.write(part)
    assert joined.without() is transport  # type: ignore[comparison-overlap]
    assert transport.done == sent
