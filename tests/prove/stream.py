"""A client that follows the stream of events, and resumes after the last id when it breaks, at any of the processes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import orjson

from tests.prove.history import History

_PAUSE_SECONDS = 0.2
_SILENCE_SECONDS = 30.0
"""After this silence the stream is opened again: a process that is frozen keeps the connection open."""


class Follower:
    """Writes down each event in the order in which it came. `last` is the id of the last one."""

    def __init__(self, history: History, base: Callable[[], str], key: str) -> None:
        self.last = "0"
        self._history = history
        self._base = base
        self._headers = {"x-api-key": key, "accept": "text/event-stream"}

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow until the context ends."""
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def reaches(self, sequence: int, seconds: float) -> bool:
        """Wait until it has seen an event of this number or a later one; return whether it did."""
        try:
            async with asyncio.timeout(seconds):
                while int(self.last) < sequence:  # noqa: ASYNC110 - it is written by another task, line by line
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def _follow(self) -> None:
        timeout = httpx.Timeout(5, read=_SILENCE_SECONDS)
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
            while True:
                with suppress(httpx.HTTPError):
                    await self._read(client)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, client: httpx.AsyncClient) -> None:
        headers = {**self._headers, "last-event-id": self.last}
        async with client.stream("GET", f"{self._base()}/api/v1/events", headers=headers) as answer:
            self._history.write("stream", "opened", after=self.last, status=answer.status_code)
            if answer.status_code != 200:
                return
            rest = b""
            async for chunk in answer.aiter_bytes():
                *blocks, rest = (rest + chunk).split(b"\n\n")
                for block in blocks:
                    self._note(block)

    def _note(self, block: bytes) -> None:
        lines = [line.partition(b": ") for line in block.split(b"\n")]
        data = b"".join(value for name, _, value in lines if name == b"data")
        if not data:
            return
        event = orjson.loads(data)
        numbers = [value.decode() for name, _, value in lines if name == b"id"]
        self.last = numbers[-1] if numbers else self.last
        if b"event: reset" in block:
            self._history.write("stream", "reset", told=event)
            return
        self._history.write(
            "stream",
            "event",
            event_id=event.get("id"),
            sequence=event.get("sequence"),
            type=event.get("type"),
            task_id=event.get("task_id"),
            run_id=event.get("run_id"),
        )
