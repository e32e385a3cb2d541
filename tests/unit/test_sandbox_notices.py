"""What the sandbox reads of a subscriber's answer."""

import gzip
import tracemalloc

import pytest

from receiver.sandbox.background import Background
from receiver.sandbox.body_forms import WrittenBody
from receiver.sandbox.notices import Notice, NoticeSender
from receiver.sandbox.script import SandboxOptions
from tests.fakes.raw_server import RawServer


def packed() -> bytes:
    """Return an answer whose body is 100 MB when it is unpacked."""
    body = gzip.compress(gzip.compress(bytes(100 << 20)))
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip, gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("forever", [b"", b"x" * 32_000], ids=["packed", "endless"])
async def test_an_answer_is_neither_unpacked_nor_read_to_its_end(forever: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n" if forever else packed()
    background = Background()
    sender = NoticeSender(SandboxOptions, background)
    await sender.open()
    tracemalloc.start()
    try:
        async with RawServer(answer, forever=forever) as server:
            notice = Notice(server.url("/"), None, WrittenBody(b"{}"))
            work = sender.send(notice, after=None, delay=0).work
            assert work is not None
            await work
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
        await sender.close()
        await background.stop()
    assert (sender.counts["acknowledged"], sender.counts["failed"]) == (1, 0)
