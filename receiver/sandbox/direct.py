"""PiAPI's paths that answer at once, without a task: language models, pictures, speech, and the upload of files."""

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from receiver.sandbox.answers import as_json, model_refusal, nonsense, refusal
from receiver.sandbox.files import UploadRefused, media_type_of, sample
from receiver.sandbox.script import KnobRefused, Script, fault_of, read_script
from receiver.sandbox.tasks import Sandbox

_COMPLETION_ID = "chatcmpl-sandbox"
_STATUSES = {"refuse": 400, "unauthorized": 401, "rate_limited": 429, "error": 500, "unavailable": 503}
"""The faults of a script that these paths know, as HTTP statuses."""


class ChatRequest(BaseModel):
    """The body of a chat completion, as far as the answer depends on it."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    sandbox: dict[str, Any] = {}

    @property
    def prompt(self) -> str:
        """The text of the last message, which may be a list of parts."""
        content = self.messages[-1].get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        return " ".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text"))


class ImageRequest(BaseModel):
    """The body of an image generation."""

    model: str = ""
    prompt: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=10)] = 1
    response_format: Literal["url", "b64_json"] = "url"
    sandbox: dict[str, Any] = {}


class SpeechRequest(BaseModel):
    """The body of a speech."""

    model: Annotated[str, Field(min_length=1)]
    input: Annotated[str, Field(min_length=1)]
    response_format: Literal["mp3", "wav"] = "mp3"
    sandbox: dict[str, Any] = {}


DirectT = TypeVar("DirectT", ChatRequest, ImageRequest, SpeechRequest)


class DirectPaths:
    """The endpoints. A body's `sandbox` is a script, of which `submit`, `retry_after` and `duration` count."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: the answer repeats the prompt; a stream takes the script's `duration`."""
        wanted = await self._read(ChatRequest, request)
        if isinstance(wanted, Response):
            return wanted
        given, script = wanted
        answer = _answer(given, self._sandbox.files_url(request))
        if not given.stream:
            return as_json(_completion(given, answer))
        # Each chunk is sent by itself, so that a client or a proxy that waits for the whole is noticed.
        return StreamingResponse(_chunks(given, answer, script.duration), media_type="text/event-stream")

    async def images(self, request: Request) -> Response:
        """`POST /v1/images/generations`."""
        wanted = await self._read(ImageRequest, request)
        if isinstance(wanted, Response):
            return wanted
        given, _ = wanted
        base = self._sandbox.files_url(request)
        return as_json({"created": int(time.time()), "data": [_image(given, base, n) for n in range(given.n)]})

    async def speech(self, request: Request) -> Response:
        """`POST /v1/audio/speech`: a sound file."""
        wanted = await self._read(SpeechRequest, request)
        if isinstance(wanted, Response):
            return wanted
        media_type = media_type_of(f"speech.{wanted[0].response_format}")
        return Response(sample(media_type), media_type=media_type)

    async def upload(self, request: Request) -> Response:
        """`POST /api/ephemeral_resource`: keep a file, and answer with its URL."""
        try:
            name = self._sandbox.files.upload(await request.body())
        except UploadRefused as error:
            return refusal(400, str(error))
        data = {"url": f"{self._sandbox.files_url(request)}/{name}"}
        return as_json({"code": 200, "message": "success", "data": data})

    async def _read(self, kind: type[DirectT], request: Request) -> tuple[DirectT, Script] | Response:
        """Return the body and its script, or the response that refuses them."""
        try:
            given = kind.model_validate_json(await request.body())
            script = read_script(given.sandbox, self._sandbox.options)
        except ValidationError as error:
            return model_refusal(400, fault_of(error))
        except KnobRefused as error:
            return model_refusal(400, str(error))
        if script.submit == "nonsense":
            return nonsense()
        status = _STATUSES.get(script.submit)
        if status is None:
            return given, script
        return model_refusal(status, f"the script asked for {script.submit}", retry_after=script.retry_after)


def _answer(given: ChatRequest, files: str) -> str:
    """Return what the model says: JSON if that was asked for; a model of images links to one."""
    if "image" in given.model:
        return f"![image]({files}/{uuid.uuid5(uuid.NAMESPACE_OID, given.prompt)}.png)"
    if (given.response_format or {}).get("type") == "json_object":
        return orjson.dumps({"answer": given.prompt}).decode()
    return f"You said: {given.prompt}"


def _completion(given: ChatRequest, answer: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**_head(given, "chat.completion"), "choices": [choice], "usage": _usage(given, answer)}


async def _chunks(given: ChatRequest, answer: str, seconds: float) -> AsyncIterator[bytes]:
    words = answer.split(" ")
    for number, word in enumerate(words):
        await asyncio.sleep(seconds / len(words))
        content = word if number == 0 else f" {word}"
        yield _event(_chunk(given, {"role": "assistant", "content": content} if number == 0 else {"content": content}))
    yield _event(_chunk(given, {}, "stop"))
    if (given.stream_options or {}).get("include_usage"):
        yield _event({**_head(given, "chat.completion.chunk"), "choices": [], "usage": _usage(given, answer)})
    yield b"data: [DONE]\n\n"


def _chunk(given: ChatRequest, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {**_head(given, "chat.completion.chunk"), "choices": [choice]}


def _head(given: ChatRequest, kind: str) -> dict[str, Any]:
    return {"id": _COMPLETION_ID, "object": kind, "created": int(time.time()), "model": given.model}


def _usage(given: ChatRequest, answer: str) -> dict[str, int]:
    asked, said = len(given.prompt.split()), len(answer.split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _image(given: ImageRequest, files: str, number: int) -> dict[str, str]:
    if given.response_format == "b64_json":
        return {"b64_json": base64.b64encode(sample("image/png")).decode()}
    return {"url": f"{files}/{uuid.uuid5(uuid.NAMESPACE_OID, f'{given.prompt}/{number}')}.png"}
