"""A provider that responds at once: it accepts every task, and every poll finds the task completed."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tests.bench.http_server import http_response, serving

KEY = "any-key-will-do"


class Provider:
    """The provider's counters. `polled` has the provider's ids of the tasks that were polled."""

    def __init__(self) -> None:
        self.base = ""
        self.created = 0
        self.polled: set[str] = set()
        self._numbers = itertools.count()
        self._awaited = 0
        self._enough = asyncio.Event()

    async def all_polled(self, count: int, seconds: float) -> bool:
        """Wait until `count` tasks have been polled, `seconds` at most; return whether they have."""
        self._awaited = count
        self._enough.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._enough.wait()
        except TimeoutError:
            return False
        return True

    def respond(self, request: bytes) -> bytes:
        """Return the response to a create or a poll."""
        method, path, _ = request.split(b" ", 2)
        if method == b"POST":
            self.created += 1
            return _envelope(_task(f"made-{next(self._numbers)}", "pending", None))
        uid = path.rsplit(b"/", 1)[-1].decode()
        self.polled.add(uid)
        if len(self.polled) == self._awaited:
            self._enough.set()
        return _envelope(_task(uid, "completed", {"image_url": f"https://img.example.com/{uid}.png"}))


@asynccontextmanager
async def providing() -> AsyncIterator[Provider]:
    """Run a provider; yield it."""
    provider = Provider()
    async with serving(provider.respond) as provider.base:
        yield provider


def _envelope(task: dict[str, Any]) -> bytes:
    return http_response(orjson.dumps({"code": 200, "data": task, "message": "success"}))


def _task(uid: str, status: str, output: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "task_id": uid,
        "model": "Qubico/flux1-schnell",
        "task_type": "txt2img",
        "status": status,
        "config": {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}},
        "input": {"prompt": "a cat in the rain"},
        "output": output,
        "meta": {"created_at": "2026-01-25T07:40:08.333962391Z", "usage": {"type": "point", "consume": 20000}},
        "logs": [],
        "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
    }
