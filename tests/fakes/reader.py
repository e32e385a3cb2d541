"""A client of the live event stream, written from the Server-Sent Events standard and not from Ringback's code."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from tests.fakes.world import World

EVENT_STREAM = {"accept": "text/event-stream"}


@dataclass(frozen=True)
class Seen:
    """One event that a reader received."""

    id: str
    event: str
    data: Any

    @property
    def sequence(self) -> int:
        """The event's sequence number."""
        return int(self.data["sequence"])

    @property
    def task_id(self) -> Any:
        """The id of the event's task; None for an event of a run."""
        return self.data["data"].get("task_id")


class Reader:
    """Reads a stream and keeps its events (`seen`), its `comments`, and the `last_id` to resume after."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.comments: list[str] = []
        self.retry: int | None = None
        self.last_id: str | None = None
        self._blocks = self._read()

    async def until(self, enough: Callable[[list[Seen]], Any], seconds: float = 20) -> list[Seen]:
        """Read until `enough` holds for the events seen; return them. Raises TimeoutError, EOFError."""
        async with asyncio.timeout(seconds):
            while not enough(self.seen):
                await self._step()
        return self.seen

    async def comment(self, words: str, seconds: float = 20) -> str:
        """Read until a comment contains `words`; return it. Raises TimeoutError, EOFError."""
        async with asyncio.timeout(seconds):
            while not any(words in comment for comment in self.comments):
                await self._step()
        return next(comment for comment in self.comments if words in comment)

    async def end(self, seconds: float = 20) -> list[Seen]:
        """Read until the service ends the stream; return the events seen. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            try:
                while True:
                    await self._step()
            except EOFError:
                return self.seen

    async def _step(self) -> None:
        try:
            block = await anext(self._blocks)
        except StopAsyncIteration:
            raise EOFError from None
        event, data = "message", b""
        for line in block.split(b"\n"):
            name, _, value = line.partition(b": ")
            match name:
                case b"id":
                    self.last_id = value.decode()
                case b"event":
                    event = value.decode()
                case b"data":
                    data += value
                case b"retry":
                    self.retry = int(value)
                case b"":
                    self.comments.append(value.decode())
                case _:
                    raise AssertionError(f"not in the standard: {line!r}")
        if data:
            assert self.last_id is not None
            self.seen.append(Seen(self.last_id, event, orjson.loads(data)))

    async def _read(self) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self.answer.aiter_bytes():
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                yield block


@asynccontextmanager
async def reading(
    world: World, after: str | int | None = None, *, key: str | None = None, **query: Any
) -> AsyncIterator[Reader]:
    """Open the stream, after an event's sequence number or from now; the stream has begun when this yields."""
    headers = {name.encode(): value.encode() for name, value in EVENT_STREAM.items()}
    if after is not None:
        headers[b"last-event-id"] = str(after).encode()
    if key is not None:
        headers[b"x-api-key"] = key.encode()
    async with world.api.stream("GET", "/api/v1/events", params=query, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        reader = Reader(answer)
        await reader.comment("from here on")
        yield reader


def numbers(seen: list[Seen]) -> list[int]:
    """Return the events' sequence numbers, in the order in which they were received."""
    assert all(each.id == str(each.sequence) for each in seen)
    return [each.sequence for each in seen]
