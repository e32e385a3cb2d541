"""The requests that the bench sends, as bytes prepared in advance: webhooks that complete tasks, and client calls."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import orjson

from receiver.domain.keyring import KeyRing
from tests.bench.databases import API_KEY, SECRET_KEY
from tests.bench.seed_rows import MODEL, task_id

_HOOK = b"POST /hooks/piapi/"
_PROMPT = "a cat in the rain, " * 10


def webhooks(numbers: Iterable[int]) -> Iterator[bytes]:
    """Return the webhooks that complete these tasks, all built before the first is sent."""
    return iter([webhook(number) for number in numbers])


@cache
def webhook(number: int) -> bytes:
    """Return the whole HTTP request of the webhook that completes this task."""
    body = orjson.dumps({"timestamp": 1724511853, "data": _completed(number)})
    secret = _keyring().hook_secret(task_id(number))
    head = (
        f"{_HOOK.decode()}{task_id(number)} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"x-webhook-secret: {secret}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def task_id_of(request: bytes) -> str:
    """Return the id of the task that a webhook's request is for."""
    return request[len(_HOOK) : len(_HOOK) + 36].decode()


def create_one() -> bytes:
    """Return the request of a client that creates one task."""
    return request("POST", "/api/v1/task", task_request())


def create_many(count: int) -> bytes:
    """Return the request of a client that creates `count` tasks in one call."""
    return request("POST", "/api/v1/tasks", {"tasks": [task_request()] * count})


def request(method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
    """Return a client's whole HTTP request, with its API key."""
    content = b"" if body is None else orjson.dumps(body)
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {API_KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read the response to one request; return its status and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r", 1)[0])
    return int(head[9:12]), await reader.readexactly(length)


@cache
def _keyring() -> KeyRing:
    return KeyRing([SECRET_KEY])


def task_request(model: str = MODEL) -> dict[str, Any]:
    """Return the body of a request for one task."""
    return {"model": model, "task_type": "txt2img", "input": {"prompt": _PROMPT}}


def _completed(number: int) -> dict[str, Any]:
    return {
        "task_id": f"p-{number}",
        **task_request(),
        "status": "completed",
        "config": {"service_mode": "public", "webhook_config": {"endpoint": "https://x", "secret": "s"}},
        "output": {"image_url": f"https://img.example.com/{number}.png", "image_urls": None},
        "meta": {
            "created_at": "2026-01-25T07:40:08.333962391Z",
            "started_at": "2026-01-25T07:40:09.333962391Z",
            "ended_at": "2026-01-25T07:40:19.333962391Z",
            "usage": {"type": "point", "frozen": 0, "consume": 20000},
            "is_using_private_pool": False,
        },
        "detail": None,
        "logs": [],
        "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
    }
