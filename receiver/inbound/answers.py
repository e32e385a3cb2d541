"""The answers to inbound webhooks."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import Send

from receiver.providers import ChallengeAnswer

_JSON = (b"content-type", b"application/json")


async def answer(
    send: Send,
    status: int,
    message: str,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    *,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Answer with a status, and a message in PiAPI's form; other providers read the status alone."""
    body = orjson.dumps({"code": status, "data": data, "message": message})
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_expected(send: Send, expected: ChallengeAnswer) -> None:
    """Answer with what the provider expects."""
    length = str(len(expected.body)).encode()
    headers = [(b"content-type", expected.content_type.encode()), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": expected.body})
