"""Following the service's stream from outside: Server-Sent Events over HTTP, through lost connections."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from receiver.cli.failure import Failure, ServiceUnreachable, Status
from receiver.cli.service import connection, reaching, read_answer

_PATH = "/api/v1/events"
_EVENT_STREAM = "text/event-stream"
_QUIET_SECONDS = 45.0
"""The stream says something every 15 seconds; what is silent for so long is lost."""
_LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One event of a stream; `data` is read from JSON."""

    id: str | None
    event: str
    data: Any


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The stream is open; `again` says that it was before."""

    again: bool


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The stream is gone, and is tried again in so many seconds."""

    reason: str
    wait: float


def follow(params: Mapping[str, Any], since: str | None) -> Iterator[StreamMessage | StreamOpened | StreamLost]:
    """Follow the stream for ever, after an event's number or from now on.

    Raises `Failure` where it cannot be opened at first, or may not be.
    """
    wait, opened = 1.0, False
    timeout = httpx.Timeout(_QUIET_SECONDS, connect=10.0)
    with httpx.Client(**{**connection(), "timeout": timeout}) as client:
        while True:
            try:
                for block in _blocks(client, params, since):
                    if block is None:
                        yield StreamOpened(again=opened)
                        wait, opened = 1.0, True
                        continue
                    since = block.get("id", since)
                    if block.get("data"):
                        yield StreamMessage(since, block.get("event", "message"), orjson.loads(block["data"]))
                reason = "the service ended the stream"
            except ServiceUnreachable as gone:
                if not opened:
                    raise
                reason = gone.message
            yield StreamLost(reason, wait)
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)


def _blocks(client: httpx.Client, params: Mapping[str, Any], since: str | None) -> Iterator[dict[str, str] | None]:
    """Open the stream once; give None when it is open, then its blocks."""
    headers = {"accept": _EVENT_STREAM, **({"last-event-id": since} if since is not None else {})}
    with reaching(client.base_url), client.stream("GET", _PATH, params=params, headers=headers) as answer:
        if not answer.headers.get("content-type", "").startswith(_EVENT_STREAM):
            answer.read()
            read_answer(answer)
            raise Failure(Status.UNREACHABLE, "the service gives no stream of events: is it an older Ringback?")
        yield None
        yield from parse(answer.iter_bytes())


def parse(chunks: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """Read Server-Sent Events (WHATWG HTML, 9.2): each block's fields by name, `data` lines joined."""
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
        # Not str.splitlines: text may hold other characters that it takes for the end of a line.
        *whole, tail = chunk.split(b"\n")
        for part in whole:
            rest += part
            yield rest.removesuffix(b"\r").decode(errors="replace")
            rest.clear()
        rest += tail
