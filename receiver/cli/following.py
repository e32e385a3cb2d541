"""A client of the service's event stream: Server-Sent Events over HTTP, resumed after lost connections."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx
import orjson
from msgspec import Struct

from receiver.cli.failure import Failure, ServiceUnreachable, Status
from receiver.cli.service import answered, connection, reaching, read_answer

_PATH = "/api/v1/events"
_EVENT_STREAM = "text/event-stream"
_SILENT_SECONDS = 45.0
"""The service sends something every 15 seconds; a stream that is silent for this long is lost."""
_FIRST_DELAY_SECONDS = 1.0
_MAX_DELAY_SECONDS = 30.0


class StreamMessage(Struct, frozen=True):
    """One message of the stream. `id` is the last id that the stream sent; `data` is parsed from JSON."""

    id: str | None
    event: str
    data: Any


class StreamOpened(Struct, frozen=True):
    """The stream is open; `again` is True if it was open before."""

    again: bool


class StreamLost(Struct, frozen=True):
    """The stream was lost; the next attempt to open it is in `delay` seconds."""

    reason: str
    delay: float


def follow(params: Mapping[str, Any], since: str | None) -> Iterator[StreamMessage | StreamOpened | StreamLost]:
    """Follow the stream without end, after the event with the number `since`, or from now on if that is None.

    Raises `Failure` if the stream cannot be opened the first time, or if the service refuses it.
    """
    delay, was_open = _FIRST_DELAY_SECONDS, False
    timeout = httpx.Timeout(_SILENT_SECONDS, connect=10.0)
    with httpx.Client(**{**connection(), "timeout": timeout}) as client:
        while True:
            try:
                for block in _blocks(client, params, since):
                    if block is None:
                        yield StreamOpened(again=was_open)
                        delay, was_open = _FIRST_DELAY_SECONDS, True
                        continue
                    since = block.get("id", since)
                    if block.get("data"):
                        yield StreamMessage(since, block.get("event", "message"), orjson.loads(block["data"]))
                reason = "the service ended the stream"
            except ServiceUnreachable as error:
                if not was_open:
                    raise
                reason = error.message
            yield StreamLost(reason, delay)
            time.sleep(delay)
            delay = min(delay * 2, _MAX_DELAY_SECONDS)


def _blocks(client: httpx.Client, params: Mapping[str, Any], since: str | None) -> Iterator[dict[str, str] | None]:
    """Open the stream once; yield None when it is open, then its blocks until it ends."""
    headers = {"accept": _EVENT_STREAM, **({"last-event-id": since} if since is not None else {})}
    with reaching(client.base_url), client.stream("GET", _PATH, params=params, headers=headers) as answer:
        if not answer.headers.get("content-type", "").startswith(_EVENT_STREAM):
            answer.read()
            read_answer(answer)
            raise Failure(
                Status.UNREACHABLE,
                "the service returned no event stream; check that it has the version of this command",
            )
        answered(answer)
        yield None
        yield from parse(answer.iter_bytes())


def parse(chunks: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """Parse Server-Sent Events (WHATWG HTML, 9.2): yield each block's fields by name, its `data` lines joined."""
    block: dict[str, str] = {}
    for line in _lines(chunks):
        if not line:
            yield block
            block = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in block:
            block["data"] += f"\n{value}"
        elif name:  # a line that begins with a colon is a comment
            block[name] = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = bytearray()
    for chunk in chunks:
        # Not str.splitlines: it also splits at other characters, which a line of text may contain.
        *whole, tail = chunk.split(b"\n")
        for part in whole:
            rest += part
            yield rest.removesuffix(b"\r").decode(errors="replace")
            rest.clear()
        rest += tail
