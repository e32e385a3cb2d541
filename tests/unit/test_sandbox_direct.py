"""The sandbox's paths that answer at once: language models, pictures, speech and uploads."""

import base64
from typing import Any

import httpx
import orjson
import pytest

from receiver.sandbox import SandboxOptions
from receiver.sandbox.files import LARGEST_UPLOAD, MOST_UPLOADS, Files
from tests.unit.test_sandbox_http import client_of

PNG = b"\x89PNG and more"


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "three small words"}], **fields}


async def post(path: str, body: dict[str, Any], options: SandboxOptions | None = None) -> httpx.Response:
    async with client_of(options or SandboxOptions(duration=0)) as client:
        return await client.post(path, json=body)


async def test_a_chat_answers_with_the_prompt_and_its_usage() -> None:
    answer = (await post("/v1/chat/completions", chat())).json()
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "You said: three small words"}
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


async def test_a_chat_s_stream_has_a_chunk_a_word_and_an_end() -> None:
    answer = await post("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event]
    assert events[-1] == "[DONE]"
    chunks = [orjson.loads(event) for event in events[:-1]]
    words = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert "".join(words) == "You said: three small words"
    assert (chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["usage"]["total_tokens"]) == ("stop", 8)


async def test_a_chat_answers_as_json_or_with_a_picture_if_it_is_asked_for() -> None:
    as_json = await post("/v1/chat/completions", chat(response_format={"type": "json_object"}))
    assert orjson.loads(as_json.json()["choices"][0]["message"]["content"]) == {"answer": "three small words"}
    parts = [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}, {"type": "text", "text": "a hat"}]
    drawn = await post(
        "/v1/chat/completions", chat(model="gpt-4o-image", messages=[{"role": "user", "content": parts}])
    )
    assert drawn.json()["choices"][0]["message"]["content"].startswith("![image](http://sandbox/files/")


async def test_pictures_come_by_url_or_inside() -> None:
    [one, two] = (await post("/v1/images/generations", {"prompt": "a hat", "n": 2})).json()["data"]
    assert one["url"] != two["url"]
    inside = await post("/v1/images/generations", {"prompt": "a hat", "response_format": "b64_json"})
    assert base64.b64decode(inside.json()["data"][0]["b64_json"]).startswith(b"\x89PNG")


async def test_a_speech_is_a_sound_file() -> None:
    mp3 = await post("/v1/audio/speech", {"model": "tts-1", "input": "hello"})
    assert (mp3.headers["content-type"], mp3.content[:3]) == ("audio/mpeg", b"ID3")
    wav = await post("/v1/audio/speech", {"model": "tts-1", "input": "hello", "response_format": "wav"})
    assert (wav.headers["content-type"], wav.content[8:12]) == ("audio/wav", b"WAVE")


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/chat/completions", {"messages": []}, "model"),
        ("/v1/chat/completions", chat(messages=[]), "messages"),
        ("/v1/chat/completions", chat(sandbox={"colour": "red"}), "colour"),
        ("/v1/images/generations", {}, "prompt"),
        ("/v1/audio/speech", {"model": "tts-1"}, "input"),
    ],
)
async def test_an_invalid_request_is_refused_and_the_field_named(path: str, body: dict[str, Any], name: str) -> None:
    answer = await post(path, body)
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]


@pytest.mark.parametrize(("submit", "status"), [("rate_limited", 429), ("unavailable", 503), ("unauthorized", 401)])
async def test_these_paths_fail_as_the_script_asks(submit: str, status: int) -> None:
    answer = await post("/v1/chat/completions", chat(sandbox={"submit": submit, "retry_after": 7}))
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, "7" if status == 429 else None)
    assert (await post("/v1/chat/completions", chat(sandbox={"submit": "nonsense"}))).text.startswith("<html>")


async def test_an_uploaded_file_is_served_as_it_was() -> None:
    async with client_of(SandboxOptions()) as client:
        body = {"file_name": "Hat.PNG", "file_data": base64.b64encode(PNG).decode()}
        answer = await client.post("/api/ephemeral_resource", json=body)
        assert (answer.json()["code"], answer.json()["message"]) == (200, "success")
        served = await client.get(answer.json()["data"]["url"])
        assert (served.content, served.headers["content-type"]) == (PNG, "image/png")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"file_data": "eA=="}, "file_name"),
        ({"file_name": "x.exe", "file_data": "eA=="}, "file_name"),
        ({"file_name": "x.png", "file_data": "not base64"}, "file_data"),
        ({"file_name": "x.png", "file_data": ""}, "file_data"),
        ({"file_name": "x.png", "file_data": base64.b64encode(bytes(LARGEST_UPLOAD + 1)).decode()}, "file_data"),
    ],
)
async def test_an_invalid_upload_is_refused_and_the_field_named(body: dict[str, Any], name: str) -> None:
    answer = await post("/api/ephemeral_resource", body)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert name in answer.json()["message"]


def test_only_the_newest_uploads_are_kept() -> None:
    files = Files()
    names = [
        files.upload(orjson.dumps({"file_name": "x.mp3", "file_data": base64.b64encode(str(n).encode()).decode()}))
        for n in range(MOST_UPLOADS + 1)
    ]
    assert files.get(names[0])[0] == b"ID3\x04" + bytes(6)
    assert files.get(names[1])[0] == b"1"
