"""A PiAPI whose every answer a test writes byte by byte, and the adapter that calls it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from receiver.providers import NewTask
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter

PAYLOADS = Path(__file__).parent.parent / "payloads"
KEY = "planted-key-0123456789"
SECRET = "planted-secret-5f0c"
CREATED_ID = "7d1e0000-0000-4000-8000-000000000016"
TASK = NewTask(
    model="Qubico/flux1-schnell",
    task_type="txt2img",
    input={"prompt": "a cup"},
    config={"service_mode": "private", "webhook_config": {"endpoint": "https://client.example.com", "secret": "own"}},
    webhook_url="https://ringback.example.com/hooks/piapi/0197",
    webhook_secret=SECRET,
)


def payload(name: str) -> bytes:
    return (PAYLOADS / f"{name}.json").read_bytes()


def reply(status: int, body: bytes | Any = b"", **headers: str) -> bytes:
    """Return a complete HTTP response."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


HANG = None
"""Read the request and send nothing until the end of the test."""


@dataclass
class FakeServer:
    """Responds to each request with what `answer` returns for it, and closes if that is not a complete response."""

    answer: Callable[[Request], bytes | None] = lambda _: reply(500)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    _connections: set[asyncio.Task[None]] = field(default_factory=set)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def responds(self, answer: bytes | None) -> None:
        self.answer = lambda _: answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while request := await _read_request(reader):
                self.requests.append(request)
                answer = self.answer(request)
                if answer is HANG:
                    await self._over.wait()
                    return
                writer.write(answer)
                await writer.drain()
                if not _is_whole(answer):
                    return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._connections.discard(task)

    async def finish(self) -> None:
        self._over.set()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    method, target, _ = head[0].split(" ")
    pairs = (line.split(": ", 1) for line in head[1:-2])
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    return f"content-length: {len(body)}\r\n".encode() in head + b"\r\n"


@asynccontextmanager
async def opened(
    url: str,
    *,
    api_key: str | None = KEY,
    patience: float = 10,
    rate_limiter: RateLimiter | None = None,
    trusts_503: bool = True,
) -> AsyncIterator[PiAPI]:
    """An adapter that is closed at the end."""
    adapter = PiAPI(
        base_url=url,
        api_key=api_key,
        timeout=patience,
        rate_limiter=rate_limiter or RateLimiter(1000),
        trusts_503=trusts_503,
    )
    try:
        yield adapter
    finally:
        await adapter.aclose()


ODD_NOTES = [b"cut \\ud83d", b"caf\xe9", b"\xed\xa0\xbd", b"a\nb\0"]


def odd_bodies(body: bytes) -> list[bytes]:
    """Return a task's body with `"@"` in it in the forms that are not strict JSON."""
    odd = [body.replace(b"@", note) for note in ODD_NOTES]
    odd += [body.replace(b'"@"', number) for number in (b"NaN", b"-Infinity", b"1e999", b"9" * 5000)]
    return [*odd, b"\xef\xbb\xbf" + body, body.decode().encode("utf-16"), body.replace(b'"@"', b"[" * 500 + b"]" * 500)]
